"""Bindings in force: their versions and leases, the registry, what a reload makes of them, what an event matches."""
