"""Tests of harn.cli.doctor."""
