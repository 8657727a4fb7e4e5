"""Documents that senders publish over HTTPS, such as their public keys: fetched with limits on time and size."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct
from twisted.internet.defer import Deferred, TimeoutError
from twisted.web.http_headers import Headers
from zope.interface import Interface, implementer

import harn
from harn.errors import HarnError, Refused
from harn.waiting import limited

if TYPE_CHECKING:
    from treq.client import HTTPClient

LONGEST = 10.0
"""Seconds that a document may take."""
LARGEST = 1024 * 1024
"""Bytes of the largest document."""


class DocumentUnavailable(HarnError):
    """A document that a sender publishes cannot be fetched; the message says why, and names its URL."""


class NotFetched(Refused):
    """The keys or addresses that a sender publishes have not been fetched yet, so that nothing of it is accepted."""


class DocumentState(Struct, frozen=True, kw_only=True):
    """
    A document that a sender publishes, as it was fetched last.

    :ivar name: for people: of the list, or of the trigger whose keys it has.
    :ivar age: seconds since it was fetched; None for never.
    :ivar error: of the last fetch; empty where that succeeded, or none has ended.
    """

    name: str
    url: str
    age: float | None
    error: str = ""


class IFetcher(Interface):
    """Fetches documents."""

    def fetch(url: str) -> Deferred[bytes]:
        """
        Return the document at a URL.

        :raises DocumentUnavailable: it cannot be had; says why.
        """


def fault_of_document_url(url: str) -> str | None:
    """Return the fault of the URL of a document; None for ``https``, and for ``http`` on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"must be a URL ({error})"
    if not url.isascii() or not url.isprintable() or " " in url or not host or parts.username is not None:
        return "must be a URL of a host, without a user and without spaces"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "must begin with https://, as whoever can change the document can sign"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@implementer(IFetcher)
class HttpFetcher:
    """
    Fetches with treq. Redirects are not followed: they would lead to a host that is not the named one.

    :param reactor: what connections are made with.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._http: HTTPClient | None = None

    def fetch(self, url: str) -> Deferred[bytes]:
        """See `IFetcher.fetch`."""
        return Deferred.fromCoroutine(self._fetch(url))

    async def _fetch(self, url: str) -> bytes:
        try:
            return await limited(Deferred.fromCoroutine(self._get(url)), LONGEST, self._reactor)
        except DocumentUnavailable:
            raise
        except TimeoutError:
            raise DocumentUnavailable(f"{url}: no answer within {LONGEST:g} s") from None
        except Exception as error:
            raise DocumentUnavailable(f"{url}: {str(error) or type(error).__name__}") from None

    async def _get(self, url: str) -> bytes:
        if self._http is None:
            # Imported when it is first used: a start would wait for it.
            from treq.client import HTTPClient
            from twisted.web.client import Agent

            self._http = HTTPClient(Agent(self._reactor, connectTimeout=LONGEST))
        headers = Headers({"Accept": ["application/json"], "User-Agent": [f"harn/{harn.__version__}"]})
        response = await self._http.get(url, headers=headers, allow_redirects=False, unbuffered=True)
        if response.code != 200:
            raise DocumentUnavailable(f"{url}: it answered {response.code}")
        parts: list[bytes] = []

        def collect(part: bytes) -> None:
            parts.append(part)
            if sum(map(len, parts)) > LARGEST:
                raise DocumentUnavailable(f"{url}: it has more than {LARGEST} bytes")

        from treq import collect as collecting

        await collecting(response, collect)
        return b"".join(parts)
