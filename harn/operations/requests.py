"""Requests of operations: read by the server, with every wrong or unknown argument refused; written by clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from attrs import field, frozen

from harn.errors import PayloadInvalid
from harn.operations.model import Operation
from harn.operations.parameters import In, Parameters, given

REQUEST_ID = "request_id"
"""A member of every body that makes a signed one unique, and is not looked at."""

P = TypeVar("P", bound=Parameters)


@frozen(kw_only=True)
class Arguments:
    """
    The arguments of a request as they came.

    :ivar headers: names in lower case.
    """

    path: Mapping[str, str] = field(factory=dict)
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


def read_parameters(operation: Operation[Any, P, Any], arguments: Arguments) -> P:
    """
    Read and check the parameters of an operation.

    :raises PayloadInvalid: one is wrong, missing or unknown; says what it must be.
    """
    values = {
        In.PATH: arguments.path,
        In.QUERY: arguments.query,
        In.HEADER: arguments.headers,
        In.BODY: _members(arguments.body),
    }
    known = {place: [each.key for each in operation.fields if each.place is place] for place in In}
    _check_known("option of the query", arguments.query, known[In.QUERY])
    _check_known("member of the body", values[In.BODY], [*known[In.BODY], REQUEST_ID])
    read: dict[str, Any] = {}
    for each in operation.fields:
        value = values[each.place].get(each.key.lower() if each.place is In.HEADER else each.key)
        try:
            if value is not None:
                read[each.name] = each.read(value) if each.place is In.BODY else each.read_text(value)
            elif each.is_required:
                raise ValueError(f"must be {each.expected}, got nothing")
        except ValueError as wrong:
            raise PayloadInvalid(f"{each.key}: {wrong}") from None
    try:
        return operation.parameters(**read)
    except ValueError as wrong:
        raise PayloadInvalid(str(wrong)) from None


def _members(body: bytes) -> dict[str, Any]:
    """
    Read an optional JSON object.

    :raises PayloadInvalid: it is something else.
    """
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PayloadInvalid("the body: must be a JSON object or empty, got something that is not JSON") from None
    if not isinstance(document, dict):
        raise PayloadInvalid("the body: must be a JSON object or empty, got another JSON value")
    return document


def _check_known(what: str, names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            allowed = ", ".join(each for each in known if each != REQUEST_ID)
            must = f"must be one of {allowed}" if allowed else "must not be given"
            raise PayloadInvalid(f"unknown {what}: {must}, got {name!r}")


@frozen(kw_only=True)
class OperationRequest:
    """
    A request as a client sends it.

    :ivar target: path and query.
    :ivar body: the members of the JSON object of a POST.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def write_request(operation: Operation[Any, P, Any], wanted: P) -> OperationRequest:
    """Write the request of an operation; what has its default is left out."""
    parts: dict[In, dict[str, Any]] = {place: {} for place in In}
    for each, value in given(operation.fields, wanted):
        parts[each.place][each.key] = value
    path = operation.route.filled({key: quote(str(value), safe="") for key, value in parts[In.PATH].items()})
    query = urlencode({key: "true" if value is True else value for key, value in parts[In.QUERY].items()})
    return OperationRequest(
        method=operation.route.method,
        target=f"/admin{path}" + (f"?{query}" if query else ""),
        headers=parts[In.HEADER],
        body=parts[In.BODY],
    )
