"""Codat's own read paths, answered from what is stored."""
