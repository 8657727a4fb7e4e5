"""Time and size limits of a connection."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Limits:
    """
    Seconds and bytes.

    :ivar headers: from a request's first byte to the end of its headers.
    :ivar body: from there to the end of its body.
    :ivar idle: between requests, and before the first.
    :ivar unread: how long a full send buffer may stay unread.
    :ivar linger: after the last answer: how long the client may be silent without closing. A client that continues to
        send has as long as for a body, and ``linger_bytes``.
    :ivar grace: when the server goes down: how long a request may still take to be complete, and a client to close.
    :ivar skipped_body: a rejected request's body of up to this size is read and discarded, and the connection kept.
    :ivar threaded_body: a body above this size is verified and normalized in a thread.
    :ivar admin_body: the largest body of an admin request.
    """

    headers: float = 10.0
    body: float = 30.0
    idle: float = 75.0
    unread: float = 60.0
    linger: float = 5.0
    linger_bytes: int = 64 * 1024 * 1024
    grace: float = 1.0
    skipped_body: int = 64 * 1024
    threaded_body: int = 256 * 1024
    admin_body: int = 1024 * 1024
