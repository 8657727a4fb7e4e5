"""Tests of harn.statistics."""
