"""Changes of a state directory on which no server runs: what an operation does there, with its audit record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harn.operations.model import Operation, Role
from harn.operations.parameters import Parameters, given
from harn.operations.registry import DONE, TOPIC, AuditRecord, new_record_id

if TYPE_CHECKING:
    from harn.store.offline import OfflineWriter

OFFLINE_ACTOR = "state-directory"
"""The actor of a change that is made while no server runs: whoever may write to the state directory."""


@contextmanager
def changing(
    state_dir: str,
    operation: Operation[Any, Any, Any],
    wanted: Parameters,
    counts: Mapping[str, int],
    now: float,
) -> Iterator[OfflineWriter]:
    """
    Make the writes of a command durable in one transaction with the audit record of an operation.

    :param counts: how much it changes.
    :param now: seconds, Unix.
    :raises StateDirectoryUnusable: a server holds the directory, or none has run on it.
    :raises EventLogUnavailable: it cannot be written; nothing was.
    """
    from harn.orchestrator.stores import check_has_store, write_offline
    from harn.store.lock import StateDirectoryLock

    record = AuditRecord(
        id=new_record_id(now),
        actor=OFFLINE_ACTOR,
        role=Role.ADMIN.value,
        operation=operation.recorded_as,
        parameters={each.key: value for each, value in given(operation.fields, wanted)},
        filter={},
        outcome=DONE,
        counts=dict(counts),
    )
    check_has_store(state_dir, os.environ)
    lock = StateDirectoryLock(state_dir)
    lock.acquire()
    try:
        with write_offline(state_dir, os.environ) as writer:
            yield writer
            writer.append_record(TOPIC, operation.recorded_as, record, now)
    finally:
        lock.release()
