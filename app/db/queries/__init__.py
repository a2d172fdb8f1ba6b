"""Queries for the API and the pages. They only read and lock nothing."""
