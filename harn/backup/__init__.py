"""Backups of a server's event log, running or not; what is restored from one; the check of a store."""
