"""Connectors: our code for each provider, behind one set of interfaces and found as plugins."""
