"""Tests of the cause classifier."""
