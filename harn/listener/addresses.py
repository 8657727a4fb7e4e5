"""``allow_from``: the addresses from which a trigger's route accepts requests."""

from __future__ import annotations

from harn.errors import AddressRefused
from harn.listener.request import HarnRequest
from harn.model.networks import is_within, read_networks, sender_of


def check_address(request: HarnRequest, allowed: tuple[str, ...]) -> None:
    """
    Check that a request's sender has an allowed address; behind trusted proxies, by what they say.

    :param allowed: networks.
    :raises AddressRefused: it has another, or none that can be read.
    """
    channel = request.channel
    peer = "" if channel is None else channel.address
    sender = sender_of(peer, request.headers.get("x-forwarded-for"), request.site.trusted_proxies)
    if sender is None or not is_within(sender, read_networks(allowed)):
        raise AddressRefused(f"requests from {sender or 'an unknown address'} are not accepted here")
