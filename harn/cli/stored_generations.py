"""Generations out of the store of a state directory on which no server runs: none of them is live."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from harn.cli.offline import DATABASE
from harn.errors import GenerationUnknown
from harn.history.recorded import describe_history, describe_recorded
from harn.reload.archive import read_kept_bundle, read_manifest_text
from harn.store.generations import GenerationRecord
from harn.store.sqlite.generations import SQLiteGenerations
from harn.store.sqlite.offline import OfflineStore, open_readonly
from harn.vm.bundle import Bundle

Content = tuple[GenerationRecord, bytes, Bundle]


@frozen(kw_only=True)
class StoredGenerations:
    """
    A `harn.cli.generations.GenerationSource` that reads the database.

    Every method raises `StateDirectoryUnusable` or `EventLogUnavailable` when it cannot be read, and
    `GenerationUnknown` for a generation whose content it does not have.

    :ivar state_dir: absolute.
    :ivar manifest: where the manifest lies.
    """

    state_dir: str
    manifest: str

    def history(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Give the last ``limit``, the newest first."""
        with self._open() as store:
            return describe_history(store.ask(SQLiteGenerations.history, limit), None)

    def show(self, number: int, sources: bool) -> Mapping[str, Any]:
        """Give one with its content."""
        with self._open() as store:
            record, text, bundle = read_content(store, number)
        return describe_recorded(record, text.decode("utf-8", "replace"), bundle, None, sources=sources)

    def diff(self, old: int, new: int | None) -> Mapping[str, Any]:
        """Give what differs; None stands for the newest that served."""
        with self._open() as store:
            if new is None:
                new = newest(store)
            contents = [read_content(store, number) for number in (old, new)]
        from harn.connectors.catalog import Catalog
        from harn.history.comparing import make_recorded
        from harn.history.differences import generation_diff

        rules = Catalog.discover().providers
        return generation_diff(
            *(make_recorded(record.number, text, bundle, self.manifest, rules) for record, text, bundle in contents)
        )

    def _open(self) -> OfflineStore:
        return open_readonly(os.path.join(self.state_dir, DATABASE))


def newest(store: OfflineStore) -> int:
    """
    Give the number of the newest generation that served.

    :raises GenerationUnknown: none did.
    """
    found = store.ask(SQLiteGenerations.history, 1)
    if not found:
        raise GenerationUnknown("no generation has served yet; start a server first")
    return found[0].number


def read_content(store: OfflineStore, number: int) -> Content:
    """
    Read one generation.

    :raises GenerationUnknown: its content is not kept, or damaged.
    """
    record = store.ask(SQLiteGenerations.generation, number)
    text = (
        store.ask(SQLiteGenerations.manifest, record.manifest_digest)
        if record is not None and record.manifest_digest
        else None
    )
    data = store.ask(SQLiteGenerations.bundle, record.bundle_id) if record is not None else None
    if record is None or text is None or data is None:
        raise GenerationUnknown(f"the content of generation {number} is not kept; `history` lists those that served")
    try:
        return record, read_manifest_text(text, record.manifest_digest), read_kept_bundle(data, record.bundle_id)
    except ValueError as error:
        raise GenerationUnknown(f"the content of generation {number} is damaged: {error}") from error
