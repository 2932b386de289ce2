"""Autoencoders, and the networks that only their training needs."""
