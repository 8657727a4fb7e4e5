"""Tests of harn.api_keys."""
