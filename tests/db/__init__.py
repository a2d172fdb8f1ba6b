"""Tests of `app/db`."""
