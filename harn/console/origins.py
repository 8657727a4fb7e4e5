"""The origin of a request: its address, whether it came over TLS, and whether a page of this console sent it."""

from __future__ import annotations

from twisted.internet.interfaces import ISSLTransport

from harn.errors import OriginRefused
from harn.listener.request import HarnRequest
from harn.listener.unverified import network_of
from harn.model.networks import is_within, read_address, sender_of

_OWN = ("same-origin", "none")
"""Values of ``Sec-Fetch-Site`` (W3C, Fetch Metadata) of a request from this console, or from the user himself."""


def network_of_sender(request: HarnRequest) -> str:
    """Return the network of a request's sender, by which failures are counted, also behind trusted proxies."""
    sender = sender_of(_peer(request), request.headers.get("x-forwarded-for"), request.site.trusted_proxies)
    return "unknown" if sender is None else network_of(str(sender))


def is_secure(request: HarnRequest) -> bool:
    """Return whether the browser speaks TLS: to this server, or to a trusted proxy before it."""
    channel = request.channel
    if channel is not None and ISSLTransport.providedBy(channel.transport):
        return True
    return _by_proxy(request) and request.headers.get("x-forwarded-proto", "").strip().lower() == "https"


def check_origin(request: HarnRequest) -> None:
    """
    Check that a change was sent by a page of this console, or by a program that is not a browser.

    :raises OriginRefused: a browser sent it for a page of another site.
    """
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None and fetched not in _OWN:
        raise OriginRefused(f"the form must be one of this console, got one of another site ({fetched})")
    request.site.own_hosts.check(request.headers.get("host"), request.headers.get("origin"))


def _peer(request: HarnRequest) -> str:
    return "" if request.channel is None else request.channel.address


def _by_proxy(request: HarnRequest) -> bool:
    address = read_address(_peer(request))
    return address is not None and is_within(address, request.site.trusted_proxies)
