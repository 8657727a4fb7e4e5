"""Backups of an event log, with or without a running server; restoring them; the check of a store."""
