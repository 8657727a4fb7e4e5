"""Tests of ``harn.workers``."""
