"""Requests with another identity, so that the same one sent twice is not a duplicate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from harn.connectors.interfaces import IConnectorPlugin
from harn.connectors.messages import Example
from harn.testing.events import declared_by
from harn.testing.places import places_of

FORM = "application/x-www-form-urlencoded"
PAYLOAD = "payload"
"""The field of a form that holds JSON."""


def renewed(
    plugin: IConnectorPlugin,
    given: Example,
    identity: str,
    settings: Mapping[str, Any] | None = None,
    *,
    keeps_body: bool = False,
) -> Example:
    """
    Return a request with another identity of its delivery; of several events each has its own.

    :param given: names of headers in lower case.
    :param keeps_body: change headers alone; where the identity is in the body, it stays.
    """
    declared = declared_by(plugin, settings)
    put = getattr(None if declared is None else declared.identity, "put", None) or places_of(plugin).identity.put
    headers = dict(given.headers)
    documents = [] if keeps_body else documents_of(given)
    changed = [dict(each) for each in documents] or [{}]
    put(identity, headers, changed[0])
    for number, each in enumerate(changed[1:], start=2):
        put(f"{identity}-{number}", {}, each)
    is_same = not documents or changed == documents
    return Example(body=given.body if is_same else written(given, changed), headers=headers)


def documents_of(given: Example) -> list[dict[str, Any]]:
    """Return the objects in a body: of JSON, of a form, or of the JSON in a form; none of any other body."""
    if _is_form(given):
        fields = _fields(given.body)
        return _objects(fields[PAYLOAD].encode()) if PAYLOAD in fields else [fields]
    return _objects(given.body)


def written(given: Example, documents: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the body of a request with other objects, in the form that it has."""
    if not _is_form(given):
        is_list = given.body.lstrip().startswith(b"[")
        return msgspec.json.encode(documents if is_list else documents[0])
    fields = _fields(given.body)
    if PAYLOAD in fields:
        return urlencode({**fields, PAYLOAD: msgspec.json.encode(documents[0]).decode()}).encode()
    return urlencode(documents[0]).encode()


def _is_form(given: Example) -> bool:
    return given.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _fields(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _objects(body: bytes) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return []
    found = document if isinstance(document, list) else [document]
    return found if all(isinstance(each, dict) for each in found) else []
