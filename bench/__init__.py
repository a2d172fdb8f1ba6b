"""Measurements and destructive runs. Nothing here is part of the service."""
