"""Destinations, where deliveries go: the interface, the installed ones, and the first of them, local functions."""
