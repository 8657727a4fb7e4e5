"""
The check of ``Host`` and ``Origin`` for the server's own pages, so that pages of other sites cannot use them.

A page of another site can make its own host name resolve to this machine (DNS rebinding): its requests then have that
name as ``Host``. Or it sends requests to the server's name: they then have the other site as ``Origin``.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from msgspec import Struct

from harn.errors import OriginRefused
from harn.listener.problems import shown

_LOCAL_NAMES = ("localhost", "ip6-localhost")
_USUAL_PORTS = {"http": ":80", "https": ":443"}
ADVICE = "name it in admin_hosts of [orchestrator], if it is meant"


class OwnHosts(Struct, frozen=True, kw_only=True):
    """
    The hosts that requests to the server's own pages may name.

    :ivar is_local: whether the server's own pages are on a loopback address alone. Then a ``Host`` that may be a name
        of the public DNS is refused; otherwise any ``Host`` is accepted.
    :ivar allowed: further accepted names, in lower case, such as those that a proxy on this machine forwards.
    """

    is_local: bool = False
    allowed: frozenset[str] = frozenset()

    def check(self, host: str | None, origin: str | None) -> None:
        """
        Check the two header fields of a request.

        :param host: the value of ``Host``; None if absent.
        :param origin: the value of ``Origin``; None if absent.
        :raises OriginRefused: a browser may have sent the request for a page of another site.
        """
        self.check_host(host)
        if origin is not None and not self._is_own(origin, host or ""):
            raise OriginRefused(f"the origin must be the server's own, got {shown(origin)!r}; {ADVICE}")

    def check_host(self, host: str | None) -> None:
        """
        Check ``Host`` alone, for a page that checks ``Origin`` by its own rule.

        :raises OriginRefused: a browser may have sent the request for a page of another site.
        """
        if host is None or not self.is_local:
            return
        name = name_of(host)
        if is_public_name(name) and name not in self.allowed:
            raise OriginRefused(
                "the host must be an address or a name without a dot, since the server listens on a loopback address"
                f" alone, got {shown(host)!r}; {ADVICE}"
            )

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether an origin has the name of the host, or an allowed name."""
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if not name or parts.scheme not in _USUAL_PORTS:
            return False
        usual = _USUAL_PORTS[parts.scheme]
        own = host.strip().lower().removesuffix(usual)
        return parts.netloc.lower().removesuffix(usual) == own or name in self.allowed


def name_of(host: str) -> str:
    """Return the name or address of a ``Host`` header, in lower case, without port and brackets."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def is_public_name(name: str) -> bool:
    """
    Return whether a name, in lower case, may be in the public DNS: its owner can make it resolve to this machine.

    IP addresses are not looked up, and browsers parse a name that ends in a number as one (https://url.spec.whatwg.org,
    3.5). Names without a dot, as containers have, and names below ``localhost`` (RFC 6761) are not in the public DNS.
    """
    plain = name.rstrip(".")
    last = plain.rpartition(".")[2]
    return "." in plain and not last.isdecimal() and last != "localhost" and not _is_address(plain)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Return whether a name or an address, in lower case, is that of a loopback interface."""
    plain = name.rstrip(".")
    if plain in _LOCAL_NAMES or plain.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(plain.partition("%")[0]).is_loopback
    except ValueError:
        return False
