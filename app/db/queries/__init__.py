"""Reads. Nothing in here writes."""
