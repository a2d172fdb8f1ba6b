"""Doors: everything HTTP that comes in."""
