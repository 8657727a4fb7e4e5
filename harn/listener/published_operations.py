"""The operation on what senders publish, and the server fetches: lists of addresses, and public keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from harn.connectors.fetching import DocumentState
from harn.connectors.published import PublishedLists
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.reload.adopt import LiveGeneration


class ListPublished(Parameters, frozen=True, kw_only=True):
    """Nothing is to be said."""


class PublishedInfo(Result, frozen=True, kw_only=True):
    """One document."""

    name: Annotated[str, Meta(description="Of the list of addresses, or of the trigger whose public keys it has.")]
    url: str
    age_seconds: Annotated[float | None, Meta(description="Since it was fetched; null for never.")] = None
    error: Annotated[str | None, Meta(description="Of the last fetch; null where that succeeded.")] = None


class PublishedList(Result, frozen=True, kw_only=True):
    """The documents that the live generation uses."""

    documents: tuple[PublishedInfo, ...]


class Published(Struct, frozen=True):
    """The documents of a server that senders publish."""

    lists: PublishedLists
    live: LiveGeneration

    def states(self) -> Iterator[DocumentState]:
        """Yield how fetching goes: of lists of addresses, then of the keys of each trigger."""
        yield from self.lists.states()
        generation = self.live.current
        for shared in () if generation is None else generation.connectors.values():
            state = shared.value.document()
            if state is not None:
                yield state


@operation("published.list", role=Role.READ, route=Get("/published"))
async def list_published(published: Published, caller: Caller, wanted: ListPublished) -> PublishedList:
    """List the documents that senders publish and the server fetches: lists of addresses, and public keys."""
    return PublishedList(documents=tuple(map(describe, published.states())))


def describe(state: DocumentState) -> PublishedInfo:
    """Return a document as it is shown."""
    age = None if state.age is None else round(state.age, 1)
    return PublishedInfo(name=state.name, url=state.url, age_seconds=age, error=state.error or None)


OPERATIONS = (list_published,)
"""The operations of `Published`."""
