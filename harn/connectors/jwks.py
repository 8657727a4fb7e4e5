"""
Public keys of a sender, as a JSON Web Key Set: fixed, or fetched, and fetched again as the sender changes them.

Keys are used by their identifier (``kid``). One that is not known is looked for in the published document again: a few
times immediately, as a sender may change its keys just after they were fetched, and then once each `LEAST_PAUSE`, so
that senders of nonsense cannot make a server fetch without end.

Source: RFC 7517, JSON Web Key (JWK).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.connectors.fetching import DocumentState, DocumentUnavailable, IFetcher

log = Logger(namespace="harn.connectors")

LEAST_PAUSE = 30.0
"""Seconds in which one more fetch is allowed."""
BURST = 3
"""Fetches that are allowed at the same time."""
MAX_AGE = 3600.0
"""Seconds after which the document is fetched again, whatever is asked for: a key that is gone from it ends then."""
MOST_KEYS = 100
KINDS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""The algorithms of each kind of public key. None is symmetric: such a key would let its readers sign."""
ALGORITHMS = tuple(name for names in KINDS.values() for name in names)
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


@frozen
class PublicKey:
    """One key: its identifier if it has one, the algorithms that it may be used with, and the library's object."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any = field(repr=False, eq=False)


def read_key_set(document: Any) -> tuple[PublicKey, ...]:
    """
    Return the keys of a set that can verify a signature; others are left out, as the RFC says.

    :param document: the parsed document.
    :raises ValueError: it is not a key set, or has no such key.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("it is not a key set: it has no array of keys")
    if len(keys) > MOST_KEYS:
        raise ValueError(f"it has {len(keys)} keys; {MOST_KEYS} is the most")
    found = [key for each in keys if (key := _read_key(each)) is not None]
    if not found:
        raise ValueError("it has no public key of RSA, EC or OKP that may verify")
    return tuple(found)


def _read_key(given: Any) -> PublicKey | None:
    import jwt  # with its use of cryptography, a start need not wait for it

    if not isinstance(given, dict) or given.get("use", "sig") != "sig" or "d" in given:
        return None
    kid, kind, named = given.get("kid"), given.get("kty"), given.get("alg")
    algorithms = KINDS.get(kind, ()) if isinstance(kind, str) else ()
    if kind == "EC":
        algorithms = tuple(filter(None, (_CURVES.get(str(given.get("crv"))),)))
    if named is not None:
        algorithms = tuple(each for each in algorithms if each == named)
    if not algorithms or not isinstance(kid, str | None):
        return None
    try:
        return PublicKey(kid, algorithms, jwt.PyJWK(given, algorithms[0]).key)
    except Exception:  # PyJWT's errors, and those of cryptography for wrong numbers
        return None


@define
class Budget:
    """The fetches that are allowed: `BURST`, and one more each `LEAST_PAUSE`, up to as many again."""

    refilled_at: float
    left: float = float(BURST)

    def take(self, now: float) -> bool:
        """Use up one, if one is left at a time (seconds of the clock)."""
        self.left = min(float(BURST), self.left + (now - self.refilled_at) / LEAST_PAUSE)
        self.refilled_at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class KeySet:
    """
    The keys that are known now.

    :param url: of the document; None for fixed ``keys``.
    """

    def __init__(self, clock: IReactorTime, fetcher: IFetcher, url: str | None, keys: Sequence[PublicKey] = ()) -> None:
        self._clock = clock
        self._fetcher = fetcher
        self._url = url
        self.keys: tuple[PublicKey, ...] = tuple(keys)
        self.is_known = url is None
        self._fetched_at: float | None = None
        self._error = ""
        self._budget = Budget(clock.seconds())
        self._has_tried = False
        self._waiting: list[Deferred[None]] = []
        self._fetching: Deferred[None] | None = None

    def find(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """Return the keys of an identifier for an algorithm; without one the only key of the set."""
        chosen = [key for key in self.keys if key.kid == kid] if kid is not None else list(self.keys)
        if kid is None and len(chosen) != 1:
            return []
        return [key for key in chosen if algorithm in key.algorithms]

    def look_for(self, kid: str | None) -> Deferred[None] | None:
        """
        Fetch the document if that may bring the key of an identifier, or it is old.

        :return: None where nothing need be waited for; else a Deferred that fires when the fetch has ended, whatever it
            brought.
        """
        if self._url is None:
            return None
        now = self._clock.seconds()
        is_missing = not self.is_known or (kid is not None and all(key.kid != kid for key in self.keys))
        is_old = self._fetched_at is None or now - self._fetched_at >= MAX_AGE
        if not is_missing and not is_old:
            return None
        if self._fetching is None and self._budget.take(now):
            self.fetch()
        if not is_missing or self._fetching is None:
            return None
        waiting: Deferred[None] = Deferred(lambda _: None)
        self._waiting.append(waiting)
        return waiting

    def fetch(self) -> None:
        """Fetch the document now."""
        assert self._url is not None
        self._has_tried = True
        fetching = self._fetcher.fetch(self._url).addCallbacks(self._fetched, self._not_fetched)
        if not fetching.called:
            self._fetching = fetching
        fetching.addBoth(self._over)

    def warm(self) -> Deferred[None] | None:
        """Fetch the document for the first time; see `look_for`. Later calls do nothing."""
        return None if self._has_tried else self.look_for(None)

    def state(self, name: str) -> DocumentState | None:
        """Return how fetching goes, under a name for people; None for fixed keys."""
        if self._url is None:
            return None
        age = None if self._fetched_at is None else self._clock.seconds() - self._fetched_at
        return DocumentState(name=name, url=self._url, age=age, error=self._error)

    def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _fetched(self, document: bytes) -> None:
        try:
            self.keys = read_key_set(msgspec.json.decode(document))
        except (ValueError, RecursionError) as error:
            self._failed(f"{self._url}: {error}")
            return
        self._fetched_at, self.is_known, self._error = self._clock.seconds(), True, ""

    def _not_fetched(self, failure: Failure) -> None:
        failure.trap(DocumentUnavailable)
        self._failed(str(failure.value))

    def _failed(self, why: str) -> None:
        self._error = why
        kept = "the keys that are known stay in use" if self.is_known else "until then no request can be verified"
        log.warn("public keys cannot be fetched, and are tried again at a request: {why}; {kept}", why=why, kept=kept)

    def _over(self, result: object) -> None:
        self._fetching = None
        if isinstance(result, Failure) and not self._waiting and result.check(DocumentUnavailable) is None:
            log.debug("fetching public keys ended: {why}", why=result.getErrorMessage())
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)
