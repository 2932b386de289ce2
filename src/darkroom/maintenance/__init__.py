"""Keeping a project in working order: what would fail here and how to fix it, and what takes room to no purpose."""
