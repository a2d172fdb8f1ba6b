"""Tests of the simulated Codat."""
