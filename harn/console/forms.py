"""Forms: their fields, their token, and the parameters of an operation that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from harn.console.origins import check_origin
from harn.console.sessions import Session
from harn.errors import NotPermitted, PayloadInvalid, RouteUnknown
from harn.listener.request import HarnRequest
from harn.manifest.diagnostics import quote
from harn.operations.http import parameters_of
from harn.operations.model import Operation
from harn.operations.parameters import In, Parameters

P = TypeVar("P", bound=Parameters)

CSRF = "csrf"
"""The field with the token of the session."""
_MOST_DIGITS = 15
_MOST_FIELDS = 64
_URLENCODED = "application/x-www-form-urlencoded"


def read_query(request: HarnRequest) -> dict[str, str]:
    """
    Return the query's fields; of a repeated one, the last value.

    :raises PayloadInvalid: there are too many.
    """
    return _fields(request.query)


def read_form(request: HarnRequest) -> dict[str, str]:
    """
    Return the fields of a form.

    :raises PayloadInvalid: the body is something else, or has too many fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body and kind != _URLENCODED:
        raise PayloadInvalid(f"the body must be {_URLENCODED}, got {kind or 'no Content-Type'}")
    return _fields(request.body)


def read_checked_form(request: HarnRequest, session: Session) -> dict[str, str]:
    """
    Return the fields of a form that changes something.

    :raises OriginRefused: a browser sent it for a page of another site.
    :raises NotPermitted: it does not carry the token of this session.
    :raises PayloadInvalid: see `read_form`.
    """
    check_origin(request)
    form = read_form(request)
    if not session.is_token(form.pop(CSRF, "")):
        raise NotPermitted("the form must carry the token of this session; go back, load the page again and repeat it")
    return form


def _fields(text: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise PayloadInvalid(f"a form must have at most {_MOST_FIELDS} fields") from None
    return dict(pairs)


def parameters_in(operation: Operation[Any, P, Any], fields: Mapping[str, Any]) -> P:
    """
    Return the parameters of an operation; an empty field counts as left out, and others than its own are not read.

    :raises PayloadInvalid: one is wrong or missing; says what it must be.
    """
    values = {each.name: fields.get(each.key, "") for each in operation.fields}
    given = {name: None if value == "" else value for name, value in values.items()}
    return parameters_of(operation, given, texts=frozenset(In))


def number_in(text: str) -> int:
    """
    Return a number that is part of a path.

    :raises RouteUnknown: it is something else, or larger than any number of a store.
    """
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    raise RouteUnknown(f"must be a number of at most {_MOST_DIGITS} digits, got {quote(text)}")


def read_json(text: str, what: str) -> Any:
    """
    Return the JSON value of a field.

    :param what: its name, for the message.
    :raises PayloadInvalid: it is not JSON.
    """
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise PayloadInvalid(f"{what}: must be JSON, got something else: {wrong}") from None


def one_literal(text: str) -> str:
    """Return a text as a literal of JMESPath."""
    written = msgspec.json.encode(text).decode("utf-8").replace("`", "\\`")
    return f"`{written}`"
