"""Automatic rollback and traffic ramps of the live generation, persisted across restarts."""
