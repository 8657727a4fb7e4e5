"""Tests of `harn.traces`."""
