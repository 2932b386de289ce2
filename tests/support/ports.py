"""Ports for servers that tests start."""

import socket


def free_port() -> int:
    """One of the loopback that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
