"""Tests of the rooms in `app/codat`."""
