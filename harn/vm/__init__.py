"""Interpreters: where one generation's user code runs."""
