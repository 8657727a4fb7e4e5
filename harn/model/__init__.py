"""Frozen values shared by every layer, with only their own validation and formatting."""
