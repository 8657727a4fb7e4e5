"""A request as a connector sees it: complete, and not decoded."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen(kw_only=True)
class InboundRequest:
    """
    One request to a trigger's route.

    :ivar headers: names in lower case; of a repeated header the values joined by ``, `` (RFC 9110, 5.3).
    :ivar body: exactly the bytes received, in ``verify``; in ``normalize`` without their content coding.
    :ivar received_at: seconds, Unix.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    received_at: float
