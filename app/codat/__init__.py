"""Codat: its REST API, its webhooks."""
