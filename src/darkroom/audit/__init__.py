"""Audit: whether DVC's lock file, the disk, DVC's cache and MLflow's runs tell the same story of how things were made.

Reads and hashes; needs no torch. Nothing is changed unless a repair is asked for.
"""
