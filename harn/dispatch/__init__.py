"""Dispatch: from an accepted event to its outcome."""
