"""Lifecycle events of reloads."""

from __future__ import annotations

from harn.lifecycle import Event
from harn.reload.generation import Candidate


class Adopted(Event, frozen=True, gc=False):
    """A new generation serves, since this turn of the reactor."""

    candidate: Candidate
