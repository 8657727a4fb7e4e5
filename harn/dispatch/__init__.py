"""Dispatch: from an accepted event to its outcome, one delivery at a time, many at once."""
