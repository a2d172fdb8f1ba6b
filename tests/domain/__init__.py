"""Tests of `app/domain`."""
