"""Tests of ``harn mcp``."""
