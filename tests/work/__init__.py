"""Tests of the rooms in `app/work`."""
