"""Tests of harn.deliveries."""
