"""Circuits: destinations that fail are given time to recover."""
