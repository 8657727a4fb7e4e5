"""Handlers for tests that name functions."""

from harn.handlers import TriggerEvent

NUMBER = 1


def on_event(event: TriggerEvent) -> str:
    """Return the kind."""
    return event.kind
