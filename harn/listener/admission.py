"""
Admission: the decision at the edge to take a request, or to answer 429 or 503.

It is not part of a generation: a reload changes its settings and neither refills nor empties a bucket. A token bucket
gains ``rate`` tokens a second, up to ``burst``. A request takes one token; if there is none, `take` returns the seconds
until there is.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from attrs import field, frozen
from attrs.validators import gt
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from harn.dispatch.dispatcher import Dispatcher
from harn.errors import RateExceeded, Saturated
from harn.manifest.settings import AdmissionSettings


@frozen
class Rate:
    """Tokens a second, and the capacity of a full bucket."""

    rate: float = field(validator=gt(0))
    burst: float = field(validator=gt(0))


class Level(Struct, frozen=True):
    """The fill level of a bucket, at a time (seconds of any one clock)."""

    tokens: float
    at: float


def full(rate: Rate, now: float) -> Level:
    """Return a full bucket."""
    return Level(rate.burst, now)


def level_at(level: Level, rate: Rate, now: float) -> Level:
    """Return the level after time has passed; a clock that goes back adds nothing, and a smaller burst limits it."""
    gained = max(0.0, now - level.at) * rate.rate
    return Level(min(rate.burst, level.tokens + gained), now)


def take(level: Level, rate: Rate, now: float) -> tuple[Level, float]:
    """
    Remove one token.

    :return: the bucket afterwards, and 0, or the seconds until a token is available (then none is removed).
    """
    present = level_at(level, rate, now)
    needed = min(1.0, rate.burst)
    if present.tokens >= needed:
        return Level(present.tokens - needed, now), 0.0
    return present, (needed - present.tokens) / rate.rate


_GLOBAL = ""  # no trigger has an empty id


class Admission:
    """
    Limits the requests that are verified and not yet durable, and, where configured, the rate of requests.

    :param global_capacity: the capacity (requests) of the global bucket if the manifest sets none.
    :param per_source_capacity: the capacity (requests) of each trigger's bucket if the manifest sets none.
    :param refill_per_sec: the tokens a second that both kinds of bucket gain.
    :param dispatcher: the dispatcher, whose bodies in memory count against the same limit of bytes.
    :ivar pending_bytes: the bytes of the bodies that are verified and not durable yet.
    :ivar pending_events: the number of requests with such bodies.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        global_capacity: float | None = None,
        per_source_capacity: float | None = None,
        refill_per_sec: float | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._defaults = (
            _rate(refill_per_sec or global_capacity, global_capacity),
            _rate(refill_per_sec or per_source_capacity, per_source_capacity),
        )
        self._global, self._each = self._defaults
        self._levels: dict[str, Level] = {}
        self._use(AdmissionSettings())
        self.pending_bytes = 0
        self.pending_events = 0
        self.rejected = 0

    @property
    def buckets(self) -> int:
        """The number of buckets."""
        return len(self._levels)

    def apply(self, settings: AdmissionSettings, trigger_ids: Collection[str]) -> None:
        """
        Apply new settings, and remove the buckets of triggers that are not in ``trigger_ids``.

        :param trigger_ids: the ids of all triggers in force.
        """
        self._use(settings)
        global_default, each_default = self._defaults
        previous = self._global, self._each
        self._global = global_default if settings.global_rate is None else _rate(settings.global_rate, None)
        self._each = each_default if settings.rate is None else _rate(settings.rate, settings.burst)
        now = self._clock.seconds()
        kept = {}
        for key, level in self._levels.items():
            old, new = (previous[0], self._global) if key == _GLOBAL else (previous[1], self._each)
            if old is not None and new is not None and (key == _GLOBAL or key in trigger_ids):
                kept[key] = level_at(level_at(level, old, now), new, now)
        self._levels = kept

    def _use(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        # Up to here there is room whatever the dispatcher holds: see `_fits`.
        self._ample = settings.max_pending_bytes - settings.max_pending_bytes // 2

    def admit(self, trigger_id: str, length: int) -> None:
        """
        Decide whether to take a request whose headers have arrived.

        :param length: the bytes that the body will have; 0 if unknown.
        :raises RateExceeded: the trigger exceeds its rate.
        :raises Saturated: the server exceeds its rate, or holds too many bytes that are not durable.
        """
        if self.pending_events >= self._settings.max_pending_events or (
            self.pending_bytes + length > self._ample and not self._fits(length)
        ):
            self._refuse_saturated()
        if self._each is not None:
            wait = self._take(trigger_id, self._each)
            if wait:
                self.rejected += 1
                raise RateExceeded(
                    f"trigger {trigger_id} is over its rate of {self._each.rate:g} requests a second",
                    retry_after=_whole(wait),
                )
        if self._global is not None:
            wait = self._take(_GLOBAL, self._global)
            if wait:
                self.rejected += 1
                raise Saturated(
                    f"the server is over its rate of {self._global.rate:g} requests a second",
                    retry_after=_whole(wait),
                )

    def enter(self, length: int) -> None:
        """
        Count a request whose sender is verified, and the bytes of its body, until `release`.

        :raises Saturated: there is no room for it.
        """
        if self.pending_events >= self._settings.max_pending_events or (
            self.pending_bytes + length > self._ample and not self._fits(length)
        ):
            self._refuse_saturated()
        self.pending_bytes += length
        self.pending_events += 1

    def release(self, length: int) -> None:
        """Stop counting a request whose deliveries are durable, or will not become durable."""
        self.pending_bytes -= length
        self.pending_events -= 1

    def _fits(self, length: int) -> bool:
        """
        Return whether ``length`` more bytes may be pending.

        The bodies of deliveries in memory count against the same limit, but only up to half of it, so that they never
        make the server refuse every new request. The dispatcher itself uses at most that half.
        """
        bound = self._settings.max_pending_bytes
        held = 0 if self._dispatcher is None else self._dispatcher.bytes_in_hand
        return bound - self.pending_bytes - length >= min(held, bound // 2)

    def _take(self, key: str, rate: Rate) -> float:
        now = self._clock.seconds()
        level = self._levels.get(key)
        self._levels[key], wait = take(full(rate, now) if level is None else level, rate, now)
        return wait

    def _refuse_saturated(self) -> None:
        self.rejected += 1
        raise Saturated("the server holds as much undurable work as it may; send the request again", retry_after=1)


def _rate(rate: float | None, burst: float | None) -> Rate | None:
    """Return a rate; without ``burst``, a bucket holds the tokens of one second, and at least one."""
    if not rate or rate <= 0:
        return None
    return Rate(float(rate), float(burst) if burst else max(1.0, float(rate)))


def _whole(seconds: float) -> int:
    return max(1, ceil(seconds))
