"""Layers and blocks that several networks are made of."""
