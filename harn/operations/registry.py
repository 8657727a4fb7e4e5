"""
The operations of one server, each with the service that it asks; running one checks the role and is recorded.

Audit records, on ``audit.operations``, say which actor had the server run an operation that changes something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from msgspec import UNSET, Struct, UnsetType

from harn.clocks import WallTime
from harn.errors import HarnError, NotPermitted
from harn.model.references import uuid7
from harn.operations.model import Caller, Counts, Operation, Reply
from harn.operations.parameters import Parameters, given

S = TypeVar("S")
P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Struct)

_FIRST_ERROR = 400

TOPIC = "audit.operations"
DONE, FAILED = "done", "failed"
SELECTING = frozenset(("event_id", "event_ids", "where", "state", "trigger", "kind", "since", "job", "binding"))
"""Parameters that say what an operation is about: the record's ``filter``."""


class AuditRecord(Struct, frozen=True, kw_only=True):
    """
    The payload of an audit record: an operation that has ended, or a job that outlived the request for it.

    :ivar id: see `new_record_id`.
    :ivar role: left out of the end of a job, as are its ``parameters``.
    :ivar filter: those parameters that say what the operation is about.
    :ivar outcome: `DONE`, or `FAILED` with the ``error``.
    :ivar counts: how much it changed.
    """

    id: str
    actor: str
    role: str | UnsetType = UNSET
    operation: str
    parameters: dict[str, Any] | UnsetType = UNSET
    filter: dict[str, Any]
    outcome: str
    counts: dict[str, int]
    error: str | UnsetType = UNSET


def new_record_id(now: float) -> str:
    """Make the id of an audit record: ``op_`` and a UUIDv7; ``now`` is seconds, Unix."""
    return f"op_{uuid7(now)}"


class Records(Protocol):
    """Appends records to the event log, as `harn.server.Server` does."""

    async def note(self, topic: str, kind: str, payload: Struct) -> object:
        """Append one record. What goes wrong with it is not the operation's failure."""


class Audit(Struct, frozen=True, kw_only=True):
    """Writes the records."""

    wall: WallTime
    records: Records

    async def record(
        self,
        operation: Operation[Any, Any, Any],
        caller: Caller,
        wanted: Parameters,
        outcome: str,
        counts: Counts | None = None,
        error: str | None = None,
    ) -> None:
        """
        Record one operation that has ended; secrets among its parameters are left out, and so are defaults.

        :param outcome: `DONE`, or `FAILED` with the ``error``.
        :param counts: how much it changed.
        """
        parameters = {each.key: value for each, value in given(operation.fields, wanted) if not each.is_secret}
        record = AuditRecord(
            id=new_record_id(self.wall.seconds()),
            actor=caller.actor,
            role=caller.role.value,
            operation=operation.recorded_as,
            parameters=parameters,
            filter={key: value for key, value in parameters.items() if key in SELECTING},
            outcome=outcome,
            counts=dict(counts or {}),
            error=UNSET if error is None else error,
        )
        await self.records.note(TOPIC, operation.recorded_as, record)


def check_role(operation: Operation[Any, Any, Any], caller: Caller) -> None:
    """
    Check that a caller may run an operation.

    :raises NotPermitted: its role does not allow it; names the one that it needs.
    """
    if not caller.role.covers(operation.role):
        raise NotPermitted(f"{operation.name}: your role must be {operation.role.value}, got {caller.role.value}")


class Operations:
    """
    The operations of one server, in the order in which they were added.

    :param audit: records those that change something.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._services: dict[str, Any] = {}
        self._operations: dict[str, Operation[Any, Any, Any]] = {}
        self._kinds: dict[str, type[Struct]] = {}

    def add(self, service: S, *operations: Operation[S, Any, Any]) -> None:
        """
        Add operations of ``service``.

        :raises ValueError: there is one of the same name or route; or its parameters or result are of a class whose
            name another class has, so that the API's document could not tell the two apart.
        """
        for each in operations:
            same = [one for one in self._operations.values() if one.name == each.name or one.route == each.route]
            if same:
                raise ValueError(f"name and route of {each.name} must be its own, but are those of {same[0].name}")
            for kind in (each.parameters, each.result):
                if self._kinds.setdefault(kind.__name__, kind) is not kind:
                    raise ValueError(
                        f"{each.name}: the name of {kind.__module__}.{kind.__name__} must be its own, but"
                        f" {self._kinds[kind.__name__].__module__} has a class of that name; rename one"
                    )
            self._operations[each.name] = each
            self._services[each.name] = service

    def __iter__(self) -> Iterator[Operation[Any, Any, Any]]:
        return iter(self._operations.values())

    async def run(self, operation: Operation[Any, P, R], caller: Caller, wanted: P) -> Reply[R]:
        """
        Run one of these operations on its service.

        :raises NotPermitted: the caller's role does not allow it.
        :raises Refused, EventLogUnavailable: as the operation does.
        """
        check_role(operation, caller)
        is_recorded = operation.audit is not None and not getattr(wanted, "dry_run", False)
        try:
            found = await operation.run(self._services[operation.name], caller, wanted)
        except Exception as error:
            if is_recorded:
                why = str(error) if isinstance(error, HarnError) else type(error).__name__  # others may show anything
                await self._audit.record(operation, caller, wanted, FAILED, error=why)
            raise
        reply = found if isinstance(found, Reply) else Reply(found)
        if is_recorded and operation.audit is not None:
            outcome = DONE if reply.status < _FIRST_ERROR else FAILED
            await self._audit.record(operation, caller, wanted, outcome, operation.audit(reply.result))
        return reply
