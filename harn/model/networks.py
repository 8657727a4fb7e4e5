"""Networks of addresses, as texts such as ``10.0.0.0/8``, and the address of a sender behind proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST_FORWARDED = 50
PUBLISHED: Mapping[str, tuple[str, str]] = {
    "github": ("https://api.github.com/meta", "hooks"),
    "stripe": ("https://stripe.com/files/ips/ips_webhooks.json", "WEBHOOKS"),
}
"""
The lists of addresses that senders publish, by name: the URL of a document, and its member with the list.

Sources: GitHub, "About GitHub's IP addresses"; Stripe, "Domains and IP addresses".
"""


def fault_of_source(text: str) -> tuple[str, str] | None:
    """Return why a text is neither a network nor the name of a published list; None when it is one of these."""
    if text in PUBLISHED:
        return None
    fault = fault_of_network(text)
    return fault and (fault[0], f"{fault[1]}, or a published list: {', '.join(sorted(PUBLISHED))}")


def fault_of_network(text: str) -> tuple[str, str] | None:
    """Return why a text is not a network or an address, and what to write; None when it is one."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return f"must be an address or a network ({error})", 'write for example "10.0.0.0/8" or "2001:db8::/32"'
    return None


@lru_cache(maxsize=4096)
def read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks of texts of which each is one."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@lru_cache(maxsize=4096)
def split_sources(texts: tuple[str, ...]) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """Return the networks of texts that `fault_of_source` accepts, and the names of published lists."""
    names = tuple(text for text in texts if text in PUBLISHED)
    return read_networks(tuple(text for text in texts if text not in PUBLISHED)), names


def read_address(text: str) -> Address | None:
    """Return the address of a text, an IPv4 one mapped to IPv6 as itself, without zone or port; None for any other."""
    text = text.strip().strip('"').partition("%")[0]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether an address lies in one of the networks."""
    return any(address in network for network in networks)


def sender_of(peer: str, forwarded: str | None, proxies: Sequence[Network]) -> Address | None:
    """
    Return the address of a request's sender: that of its connection, or, where a trusted proxy has that, what it says.

    :param peer: the address of the connection.
    :param forwarded: ``X-Forwarded-For``; None where it is absent.
    :param proxies: networks of trusted proxies. Addresses are read from the right, as long as the last is one of them:
        what stands further left was written by the sender itself.
    :return: None where there is no readable address.
    """
    address = read_address(peer)
    hops = [] if forwarded is None else forwarded.split(",")[-_MOST_FORWARDED:]
    while address is not None and hops and is_within(address, proxies):
        address = read_address(hops.pop())
    return address
