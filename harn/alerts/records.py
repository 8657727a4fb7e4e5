"""The record of an alert in the store. Imports nothing of Twisted: a command lists alerts without a server, too."""

from __future__ import annotations

import msgspec

from harn.alerts.model import AlertState

PREFIX = "alert:"
"""The beginning of the names of checkpoints; an alert's key follows."""


class SilenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """See `harn.alerts.silence.Silence.record`."""

    last: dict[str, float] = {}
    silent: dict[str, float] = {}


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    An alert as it is stored: its definition, for those who list alerts without a server, and its state.

    ``target`` shows no secret. ``saved_at`` is seconds, Unix.
    """

    name: str
    trigger_id: str | None
    on: str
    to: str
    target: str
    threshold: int
    within: float
    every: float
    saved_at: float
    state: AlertState = AlertState()
    silence: SilenceRecord | None = None
