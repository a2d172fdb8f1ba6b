"""Causes: why a transaction or a sync failed."""
