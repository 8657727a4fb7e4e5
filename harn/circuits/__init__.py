"""Circuits: circuit breakers, which give failing destinations time to recover."""
