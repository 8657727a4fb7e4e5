"""Tests of harn.keys."""
