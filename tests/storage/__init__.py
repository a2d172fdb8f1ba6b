"""Tests of the rooms in `app/storage`."""
