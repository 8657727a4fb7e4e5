"""Dispatch: from an accepted event to its durable outcome."""
