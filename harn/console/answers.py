"""Answers of the console: pages, parts of pages, assets, and where the browser goes next, with their headers."""

from __future__ import annotations

from harn.listener.problems import Response

HTML = b"text/html; charset=utf-8"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline (W3C, Content Security Policy Level 3)."""
_GUARDED = (
    f"Content-Security-Policy: {POLICY}\r\n"
    "X-Frame-Options: DENY\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    # Not `no-referrer`: then browsers send `Origin: null` with our own forms (Fetch, "append a request Origin header").
    "Referrer-Policy: same-origin\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
).encode("ascii")
GUARDED = _GUARDED + b"Cache-Control: no-store\r\n"
"""The headers of every answer but assets."""
_KEPT = _GUARDED + b"Cache-Control: max-age=31536000, immutable\r\n"


def page(body: bytes, status: int = 200, headers: bytes = b"") -> Response:
    """
    Return a page, or a part of one.

    :param headers: further header lines, each ending in CRLF.
    """
    return Response(status, body, HTML, GUARDED + headers)


def see_other(location: str, headers: bytes = b"") -> Response:
    """
    Send the browser to another page of the console.

    :param location: a path, percent-encoded, with its query.
    """
    line = f"Location: {location}\r\n".encode("ascii", "replace")
    return Response(303, b"", HTML, GUARDED + line + headers)


def text(status: int, words: str, retry_after: int | None = None) -> Response:
    """Return a line of text: for the script, which asks for parts of pages; ``retry_after``: seconds."""
    wait = b"" if retry_after is None else b"Retry-After: %d\r\n" % retry_after
    return Response(status, words.encode("utf-8") + b"\n", b"text/plain; charset=utf-8", GUARDED + wait)


def download(body: bytes, name: str) -> Response:
    """Return a JSON document as a file of this name, which consists of letters, digits, ``_``, ``-`` and dots."""
    line = f'Content-Disposition: attachment; filename="{name}"\r\n'.encode("ascii", "replace")
    return Response(200, body, b"application/json", GUARDED + line)


def asset(body: bytes, content_type: bytes) -> Response:
    """Return a file of the package, whose address changes with its content."""
    return Response(200, body, content_type, _KEPT)
