"""Where generations come from: a running server, or, when none runs, its store. Both give the same values."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen
from msgspec import to_builtins

from harn.cli.client import AdminClient
from harn.cli.operations import Answered, ask
from harn.cli.place import Reach
from harn.history.model import GenerationContent, GenerationDiff, GenerationInfo
from harn.history.operations import (
    DiffGenerations,
    ListGenerations,
    ShowGeneration,
    diff_generations,
    list_generations,
    show_generation,
)
from harn.reload.operations import ShowLive, show_live


@frozen(kw_only=True)
class History:
    """
    The generations that served, the newest first.

    :ivar probation: that of the live one, as the server shows it; None for none.
    """

    generations: tuple[GenerationInfo, ...]
    probation: dict[str, Any] | None = None

    def document(self) -> list[dict[str, Any]]:
        """Return what ``--json`` prints: each generation; the one on probation with that as ``probation``."""
        probation = self.probation
        entries: list[dict[str, Any]] = to_builtins(self.generations)
        if probation is None:
            return list(entries)
        number = probation["generation"]
        return [{**each, "probation": probation} if each["generation"] == number else each for each in entries]


class GenerationSource(Protocol):
    """Gives generations."""

    def history(self, wanted: ListGenerations) -> History:
        """Return the last ones."""

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """Return one with its content."""

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """Return what differs between two."""


@frozen
class ServerGenerations:
    """Generations from a running server."""

    client: AdminClient

    def history(self, wanted: ListGenerations) -> History:
        """See `GenerationSource.history`."""
        listed = ask(self.client, list_generations, wanted)
        live = ask(self.client, show_live, ShowLive())
        return History(generations=listed.result.generations, probation=live.result.probation)

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """See `GenerationSource.show`."""
        return ask(self.client, show_generation, wanted)

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """See `GenerationSource.diff`."""
        return ask(self.client, diff_generations, wanted)


def find_source(reach: Reach) -> GenerationSource:
    """Return the server's generations if one runs, else those of its store."""
    client = reach.client_if_any()
    if client is not None:
        return ServerGenerations(client)
    from harn.cli.stored_generations import StoredGenerations

    return StoredGenerations(state_dir=reach.place.state_dir, manifest=reach.place.manifest)
