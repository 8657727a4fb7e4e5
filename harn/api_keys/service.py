"""The named keys of a server, in the store and in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import to_builtins
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.auth.keys import KEYS, KeyRing, NamedKey, digest_key, make_key, read_keys, with_key, without_key
from harn.clocks import WallTime
from harn.errors import EventLogUnavailable
from harn.operations.model import Role
from harn.store.checkpoints import ICheckpoints

log = Logger(namespace="harn.api_keys")


class NamedKeys:
    """
    Makes and revokes keys.

    :ivar ring: those in force; requests are checked against it.
    """

    def __init__(self, wall: WallTime, checkpoints: ICheckpoints, ring: KeyRing) -> None:
        self._wall = wall
        self._checkpoints = checkpoints
        self.ring = ring
        self._lock = DeferredLock()
        self._is_following = False

    async def load(self) -> None:
        """
        Put the keys of the store in force, before anything is served; an upgrade reads them once more.

        :raises EventLogUnavailable: they cannot be read; those in force stay.
        """
        kept = await self._checkpoints.get(KEYS)
        found = read_keys(kept)
        if kept and len(found) < len(kept):
            log.error(
                "{count} named keys have damaged records and are not accepted; make them again (`harn orchestrator"
                " keys list` shows those that are)",
                count=len(kept) - len(found),
            )
        self.ring.replace(found)

    def follow(self) -> None:
        """Read the keys again, which other servers on the store may have changed."""
        if not self._is_following:  # one that still waits for the lock reads all that comes until then
            self._is_following = True
            Deferred.fromCoroutine(self._follow()).addErrback(_not_followed)

    async def _follow(self) -> None:
        await self._lock.acquire()
        self._is_following = False
        try:
            found = read_keys(await self._checkpoints.get(KEYS))
            if found != tuple(self.ring):
                self.ring.replace(found)
        finally:
            self._lock.release()

    async def create(self, name: str, role: Role, actor: str) -> tuple[NamedKey, str]:
        """
        Make a key that counts from now on; return its record, and the key itself, which is not kept.

        :raises WrongState: there is one of that name, or there are too many.
        :raises EventLogUnavailable: it could not be recorded; nothing has changed.
        """
        key = make_key()
        made = NamedKey(name=name, role=role, digest=digest_key(key), made_at=self._wall.seconds(), made_by=actor)
        await self._change(lambda keys: with_key(keys, made))
        return made, key

    async def revoke(self, name: str) -> None:
        """
        Refuse a key from now on.

        :raises RouteUnknown: there is none of that name.
        :raises EventLogUnavailable: it could not be recorded; nothing has changed.
        """
        await self._change(lambda keys: without_key(keys, name))

    async def _change(self, change: Callable[[Sequence[NamedKey]], Sequence[NamedKey]]) -> None:
        """Change the keys in the store, which another server may change meanwhile: then from the start, with its."""
        await self._lock.acquire()
        try:
            while True:
                kept = await self._checkpoints.get(KEYS)
                keys = change(read_keys(kept))
                if await self._checkpoints.replace(KEYS, kept, to_builtins(keys) or None):
                    break
            self.ring.replace(keys)
        finally:
            self._lock.release()


def _not_followed(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("named keys cannot be read again", failure)
