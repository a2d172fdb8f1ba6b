"""Tests of the rooms in `app/web`."""
