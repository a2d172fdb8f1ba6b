"""The neighbour Codat: its signature, its events, its REST API."""
