"""Specs, definitions, versions and events for the tests of this package and of dispatch."""

from __future__ import annotations

from typing import Any

import msgspec

from harn.manifest.model import TriggerSpec
from harn.model.event import VERIFIED, Envelope, TriggerEvent
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import KeyedPool
from harn.wire import digest_value


class NotingPool(KeyedPool[Any]):
    """
    A pool whose objects need no closing.

    :ivar closed: those that it has closed, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[object] = []

    async def close(self, value: object) -> None:
        """See `KeyedPool.close`."""
        self.closed.append(value)


def spec(trigger_id: str = "gh", **settings: Any) -> TriggerSpec:
    """Make a trigger; ``settings`` are fields of `TriggerSpec`."""
    given = {"kind": "webhook", "provider": "github", "path": f"/triggers/{trigger_id}", "handler": "handlers:on_event"}
    return TriggerSpec(id=trigger_id, **{**given, **settings})


def definition(of: TriggerSpec | None = None, code: str = "code-1", predicate_code: str | None = None) -> Definition:
    """Define a trigger; ``code`` stands for the digest of its handler's source."""
    of = spec() if of is None else of
    return Definition.of(of, digest_value(msgspec.to_builtins(of)), code, predicate_code)


def version(number: int = 1, of: TriggerSpec | None = None, code: str = "code-1") -> BindingVersion:
    """Make a binding version."""
    return BindingVersion(definition(of, code), number, "sha256:bundle")


def event(kind: str = "issues.opened", body: bytes = b'{"n": 1}', **fields: Any) -> TriggerEvent:
    """Make an event; ``fields`` are fields of `Envelope`."""
    given: dict[str, Any] = {
        "id": "trigger_evt_1",
        "provider": "github",
        "received_at": "2026-01-02T03:04:05.678Z",
        "dedupe_key": "d-1",
        "trace_id": "trace_1",
        "headers": {"x-id": "h-1"},
        "signature_status": VERIFIED,
        "payload": {},
        "lifted": {"n": ["n"]},
        "body_format": "json",
    }
    return TriggerEvent(Envelope(kind=kind, **{**given, **fields}), body)
