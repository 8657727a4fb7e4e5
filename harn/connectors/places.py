"""Where a trigger's settings say that kind and identifier of an event are."""

from __future__ import annotations

from typing import Annotated

import msgspec

from harn.connectors.messages import First, Header, Member, first_of, header, member

_HEADER, _BODY = "header:", "body:"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern="^[!-~]+$")]
"""The name of a header or of a parameter of the query."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a table that says where the facts of an event are."""

    kind: Annotated[
        str | None,
        msgspec.Meta(
            description="Where the kind of an event is: `header:X-Event`, `body:event.type`, or one kind for all;"
            " default: the body's `type`, else its `event`, else `webhook`."
        ),
    ] = None
    id: Annotated[
        str | None,
        msgspec.Meta(
            description="Where the identifier of a delivery is: `header:X-Delivery` or `body:id`; default: the body's"
            " `id`, else a digest of the body."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.id is not None and fact_of(self.id) is None:
            raise ValueError(f'id must begin with header: or body:, got "{self.id[:40]}"')

    def kind_fact(self) -> First:
        """Return the fact that is the kind."""
        if self.kind is None:
            return first_of(member("type"), member("event"), otherwise="webhook")
        found = fact_of(self.kind)
        return first_of(otherwise=self.kind) if found is None else first_of(found)

    def identity_fact(self) -> Header | Member:
        """Return the fact that is the identifier."""
        found = None if self.id is None else fact_of(self.id)
        return member("id") if found is None else found


def fact_of(place: str) -> Header | Member | None:
    """Return the fact of a place; None where the text is not a place."""
    if place.startswith(_HEADER) and len(place) > len(_HEADER):
        return header(place.removeprefix(_HEADER))
    if place.startswith(_BODY) and len(place) > len(_BODY):
        return member(*place.removeprefix(_BODY).split("."))
    return None
