"""The neighbour database. SQL appears in this package only."""
