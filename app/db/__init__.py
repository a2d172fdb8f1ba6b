"""The database. SQL lives in this package only."""
