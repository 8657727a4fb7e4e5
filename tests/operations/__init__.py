"""Tests of harn.operations."""
