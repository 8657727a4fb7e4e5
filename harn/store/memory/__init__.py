"""The store in memory: for tests, and for a server that may forget everything."""
