"""``allow_from``: the addresses from which a trigger's route accepts requests."""

from __future__ import annotations

from harn.connectors.fetching import NotFetched
from harn.errors import AddressRefused
from harn.listener.request import HarnRequest
from harn.model.networks import is_within, sender_of, split_sources


def check_address(request: HarnRequest, allowed: tuple[str, ...]) -> None:
    """
    Check that a request's sender has an allowed address; behind trusted proxies, by what they say.

    :param allowed: networks, and names of published lists.
    :raises AddressRefused: it has another, or none that can be read.
    :raises NotFetched: it may be one of a list that has not been fetched yet.
    """
    channel = request.channel
    peer = "" if channel is None else channel.address
    sender = sender_of(peer, request.headers.get("x-forwarded-for"), request.site.trusted_proxies)
    networks, names = split_sources(allowed)
    if sender is not None and is_within(sender, networks):
        return
    published = request.site.published
    lists = {name: None if published is None else published.networks(name) for name in names}
    if sender is not None and any(each is not None and is_within(sender, each) for each in lists.values()):
        return
    missing = [name for name, each in lists.items() if each is None]
    if sender is not None and missing:
        raise NotFetched(
            f"the addresses of {' and '.join(missing)} have not been fetched yet; send the request again",
            retry_after=30,
        )
    raise AddressRefused(f"requests from {sender or 'an unknown address'} are not accepted here")
