"""Checkpoints: small JSON values by name that outlast a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted

_encoder = msgspec.json.Encoder()


class ICheckpoints(Interface):
    """JSON values by name, each replaced whole; `IGenerations.adopted` puts some together with its own note."""

    def put(name: str, value: Any) -> Deferred[None]:
        """
        Keep a JSON value under a name, over restarts, in place of the one before; None removes it.

        :raises TypeError: at once: the value has no form in JSON.
        """

    def get(name: str) -> Deferred[Any]:
        """Return the value under a name, or None."""

    def beginning(prefix: str) -> Deferred[Mapping[str, Any]]:
        """Return the values whose names begin with ``prefix``, by name."""


def encode_checkpoints(values: Mapping[str, Any]) -> dict[str, bytes | None]:
    """
    Encode values at once, so that later changes to them do not count; None stays None, and removes what is kept.

    :raises TypeError: a value holds something that JSON has no form for.
    """
    return {name: None if value is None else _encoder.encode(value) for name, value in values.items()}
