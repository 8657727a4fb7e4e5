"""Bindings in force: their versions and leases, the registry, reconciliation of definitions, and matching of events."""
