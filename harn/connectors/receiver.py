"""What our connectors for incoming requests have in common: secrets to make ready, and nothing to run."""

from __future__ import annotations

from collections.abc import Callable

from harn.connectors.model import ConnectorContext
from harn.errors import StageFailed


class Receiver:
    """
    The life cycle of a connector that waits for requests. It starts nothing, so there is nothing to stop.

    Subclasses add ``verify`` and ``normalize``.
    """

    def __init__(self, context: ConnectorContext) -> None:
        self._binding = context.binding
        self._keys: tuple[bytes, ...] = ()

    def prepare(self) -> None:
        """Acquire nothing; subclasses make their keys ready."""

    def activate(self) -> None:
        """Begin nothing: the route is what brings requests."""

    def quiesce(self) -> None:
        """Stop nothing: the route goes away by itself, and leased requests may still come through."""

    def close(self) -> None:
        """Forget the keys."""
        self._keys = ()

    def _use_secret(self, name: str, key: Callable[[bytes], bytes]) -> None:
        """
        Turn the values of the secret ``name`` into keys.

        :raises StageFailed: there is none, or one is not usable; names the trigger and the position, never the value.
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
