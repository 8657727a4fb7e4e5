"""Where generations come from: a running server, or, when none runs, its store. Both give the same JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from attrs import frozen

from harn.cli.client import AdminClient
from harn.cli.place import Reach

Entry = Mapping[str, Any]


class GenerationSource(Protocol):
    """Gives generations; see `harn.history.recorded` and `harn.history.differences` for their shapes."""

    def history(self, limit: int) -> Sequence[Entry]:
        """Give the last ``limit``, the newest first; one that is on probation has that as ``probation``."""

    def show(self, number: int, sources: bool) -> Entry:
        """Give one with its content."""

    def diff(self, old: int, new: int | None) -> Entry:
        """Give what differs; None stands for the live one."""


@frozen
class ServerGenerations:
    """Generations from a running server."""

    client: AdminClient

    def history(self, limit: int) -> Sequence[Entry]:
        """See `GenerationSource.history`."""
        entries: Sequence[Entry] = self.client.get(f"/admin/generations?limit={limit}").expect_list("generations")
        probation = self.client.get("/admin/generation").expect_ok().get("probation")
        if probation is None:
            return entries
        number = probation["generation"]
        return [{**each, "probation": probation} if each["generation"] == number else each for each in entries]

    def show(self, number: int, sources: bool) -> Entry:
        """See `GenerationSource.show`."""
        query = "?sources=true" if sources else ""
        entry: Entry = self.client.get(f"/admin/generations/{number}{query}").expect_ok("generation", "digest")
        return entry

    def diff(self, old: int, new: int | None) -> Entry:
        """See `GenerationSource.diff`."""
        asked = {"from": old} if new is None else {"from": old, "to": new}
        answer = self.client.get(f"/admin/diff?{urlencode(asked)}")
        found: Entry = answer.expect_ok("from", "to", "summary")
        return found


def find_source(reach: Reach) -> GenerationSource:
    """Give the server's generations if one runs, else those of its store."""
    client = reach.client_if_any()
    if client is not None:
        return ServerGenerations(client)
    from harn.cli.stored_generations import StoredGenerations

    return StoredGenerations(state_dir=reach.place.state_dir, manifest=reach.place.manifest)
