"""The base of connectors for incoming requests: they prepare secrets, and run nothing."""

from __future__ import annotations

from collections.abc import Callable

from harn.connectors.model import ConnectorContext
from harn.errors import StageFailed


class Receiver:
    """
    The life cycle of a connector that waits for requests. It starts nothing, so it has nothing to stop.

    Subclasses add ``verify`` and ``normalize``.
    """

    def __init__(self, context: ConnectorContext) -> None:
        self._binding = context.binding
        self._keys: tuple[bytes, ...] = ()

    def prepare(self) -> None:
        """Acquire nothing; subclasses prepare their keys."""

    def activate(self) -> None:
        """Start nothing: requests arrive through the route."""

    def quiesce(self) -> None:
        """Stop nothing: the route is removed elsewhere, and leased requests may still arrive."""

    def close(self) -> None:
        """Remove the keys."""
        self._keys = ()

    def _use_secret(self, name: str, key: Callable[[bytes], bytes]) -> None:
        """
        Convert the values of the secret ``name`` to keys.

        :raises StageFailed: it has no value, or one is not usable; names the trigger and the position, never the value.
        """
        values = self._binding.secrets.get(name, ())
        if not values:
            raise StageFailed("prepare", f"trigger {self._binding.trigger_id}: the secret {name} has no value")
        keys = []
        for number, value in enumerate(values, start=1):
            try:
                keys.append(key(value))
            except ValueError as error:
                place = name if len(values) == 1 else f"{name} (number {number} of {len(values)})"
                raise StageFailed(
                    "prepare",
                    f"trigger {self._binding.trigger_id}: the value of the secret {place} cannot be used: {error}",
                ) from None
        self._keys = tuple(keys)
