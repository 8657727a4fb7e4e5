"""Tests of ``harn.destinations``."""
