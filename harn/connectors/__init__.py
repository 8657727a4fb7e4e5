"""Connectors: harn's code for each provider, behind one set of interfaces, and found as plugins."""
