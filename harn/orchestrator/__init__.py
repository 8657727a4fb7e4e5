"""The server put together: settings, composition, signals, state file, life cycle."""
