"""The answer that a handler gives to the request of its event. Imported by the interpreter's child process."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

RESULT_KEY = "harn.response"
"""The one member of a result that is an answer."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8000}")
_OURS = frozenset(
    ("connection", "content-length", "date", "harn-generation", "keep-alive", "trailer", "transfer-encoding", "upgrade")
)
_LOWEST, _HIGHEST = 200, 599


class Response:
    """
    The answer to the request, returned by a handler whose trigger has ``respond = "handler"``.

    ::

        return Response(200, {"text": "deployed"})
        return Response(200, "<Response/>", {"Content-Type": "text/xml"})

    :ivar status: 200 to 599.
    :ivar body: ``str``, ``bytes``, None for no body; anything else is sent as JSON.
    :ivar headers: of the answer; ``Content-Type`` fits the body unless it is given.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """
        Make an answer.

        :raises ValueError: the status is out of its range, or a header is malformed or set by the server itself.
        """
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        self._check()

    def _check(self) -> None:
        """Raise `ValueError` if the status or a header cannot be sent; a handler may have changed them."""
        status = self.status
        if isinstance(status, bool) or not isinstance(status, int) or not _LOWEST <= status <= _HIGHEST:
            raise ValueError(f"Response: status must be an integer from {_LOWEST} to {_HIGHEST}, got {status!r}")
        for name, value in self.headers.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(f"Response: a header's name must be a token of HTTP, got {name!r}")
            if name.lower() in _OURS:
                raise ValueError(f"Response: the header {name} is set by the server")
            if not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise ValueError(f"Response: the value of {name} must be one line of Latin-1 text, got {value!r}")

    @property
    def content_type(self) -> str:
        """Return the content type: as given, else as fits the body."""
        given = next((value for name, value in self.headers.items() if name.lower() == "content-type"), None)
        if given is not None:
            return given
        if self.body is None or isinstance(self.body, str):
            return "text/plain; charset=utf-8"
        return "application/octet-stream" if isinstance(self.body, bytes) else "application/json"

    def content(self) -> bytes:
        """Return the bytes of the body."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode("utf-8") if isinstance(self.body, str) else msgspec.json.encode(self.body)

    def to_result(self) -> dict[str, Any]:
        """
        Return the result, in JSON's types, that `read_response` reads.

        :raises ValueError: the status or a header cannot be sent.
        """
        self._check()
        body = {"body_base64": base64.b64encode(self.body).decode("ascii")} if isinstance(self.body, bytes) else {}
        return {RESULT_KEY: {"status": self.status, "headers": self.headers, **(body or {"body": self.body})}}

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def read_response(result: bytes) -> Response | None:
    """Return the answer that a delivery's result is: a `Response`, or any other JSON value but null; None without."""
    try:
        value = msgspec.json.decode(result)
        if value is None or not isinstance(value, dict) or set(value) != {RESULT_KEY}:
            # The JSON itself: a text, too.
            return None if value is None else Response(200, result, {"Content-Type": "application/json"})
        given = value[RESULT_KEY]
        body = base64.b64decode(given["body_base64"]) if "body_base64" in given else given.get("body")
        return Response(given["status"], body, given.get("headers"))
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None
