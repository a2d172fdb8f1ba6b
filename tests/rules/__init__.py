"""Tests of the rooms in `app/rules`."""
