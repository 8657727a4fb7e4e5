"""Frozen values that every layer may name; no behaviour beyond checking and formatting themselves."""
