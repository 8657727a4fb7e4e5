"""Reloading: from one generation to the next, whole or not at all."""
