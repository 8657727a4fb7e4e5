"""The keys of a connector: from the values of a trigger's secrets, and to prove a request as its sender does."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from harn.connectors.interfaces import ConnectorBinding, IRequestScheme
from harn.connectors.signatures import StandardScheme
from harn.errors import StageFailed
from harn.model.exchange import InboundRequest

Scheme = Any
"""An `harn.connectors.interfaces.IScheme`, or an `IRequestScheme`."""


class SecretUnusable(StageFailed):
    """
    The value of a secret cannot be used by its provider; the message says why, and never quotes it.

    :ivar key: of the trigger that names the secret, for example ``secrets.signing_secret[1]``.
    :ivar why: the reason alone, without the names of trigger and secret.
    """

    def __init__(self, message: str, key: str, why: str) -> None:
        super().__init__("prepare", message)
        self.key = key
        self.why = why


def keys_of(binding: ConnectorBinding, name: str, scheme: Scheme) -> tuple[bytes, ...]:
    """
    Return the keys that the values of the secret ``name`` are for a scheme.

    :raises SecretUnusable: it has no value, or one is not usable; names the trigger and the position, never the value.
    """
    values, key = binding.secrets.get(name, ()), f"secrets.{name}"
    if not values:
        raise SecretUnusable(f"trigger {binding.trigger_id}: the secret {name} has no value", key, "it is empty")
    keys = []
    for number, value in enumerate(values, start=1):
        try:
            keys.append(scheme.key(value))
        except ValueError as error:
            place = name if len(values) == 1 else f"{name} (number {number} of {len(values)})"
            raise SecretUnusable(
                f"trigger {binding.trigger_id}: the value of the secret {place} cannot be used: {error}",
                key if len(values) == 1 else f"{key}[{number - 1}]",
                str(error),
            ) from None
    return tuple(keys)


def prove(scheme: Scheme, key: bytes, request: InboundRequest, now: float) -> InboundRequest:
    """
    Return a request as its sender would send it: with the headers, or the query, that show who sent it.

    :param key: as the scheme's ``key`` returns it; the private one where the configured one is public.
    :param now: seconds, Unix.
    """
    if IRequestScheme.providedBy(scheme):
        proven: InboundRequest = scheme.sign_request(key, request, now)
        return proven
    message_id = request.headers.get("webhook-id")
    if message_id is not None and isinstance(scheme, StandardScheme):
        made = scheme.sign(key, request.body, now, message_id)
    else:
        made = scheme.sign(key, request.body, now)
    signed = {name.lower(): value for name, value in made.items()}
    return structs.replace(request, headers={**request.headers, **signed})
