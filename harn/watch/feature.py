"""The watcher of a server, which asks for a reload when a file of the live generation changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import PreconditionFailed
from harn.reload.coordinator import Coordinator
from harn.reload.inputs import ExternalInputs, current_digests
from harn.reload.reader import FileReader
from harn.reload.report import UNASKED, ReloadRequest
from harn.server import Server
from harn.watch.files import IWatchedServer, ReloadOutcome, Watched, reload_outcome
from harn.watch.watcher import FileWatcher

ACTOR = "watch"


def install(server: Server) -> None:
    """Add the watcher."""
    watched = WatchedServer(server[Coordinator], server.options.manifest, server[ExternalInputs].hash_key)
    server.background.add(FileWatcher(server[FileReader], watched))


@implementer(IWatchedServer)
class WatchedServer(Struct, frozen=True):
    """
    The server, as its watcher sees it.

    :ivar manifest: the manifest's absolute path.
    :ivar hash_key: see `ExternalInputs`.
    """

    coordinator: Coordinator
    manifest: str
    hash_key: bytes

    def watched(self) -> Watched:
        """See `IWatchedServer.watched`."""
        live = self.coordinator.current
        inputs, pin = (None, None) if live is None else (live.inputs, live.pin)
        failing = self.coordinator.last_failed is not None or self.coordinator.waiting is not None
        return Watched.of(inputs, self.manifest, pin, failing=failing)

    def read(self, paths: Iterable[str]) -> Mapping[str, str]:
        """See `IWatchedServer.read`."""
        live, wanted = self.coordinator.current, frozenset(paths)
        keyed = frozenset() if live is None else frozenset(live.inputs.files) - live.inputs.plain_files
        return current_digests(wanted, wanted - keyed, self.hash_key)

    def reload(self, content: Mapping[str, str]) -> Deferred[ReloadOutcome]:
        """See `IWatchedServer.reload`."""
        request = ReloadRequest(source=UNASKED, actor=ACTOR, expected=content)
        return self.coordinator.reload(request).addCallback(reload_outcome)

    def renew(self) -> Deferred[ReloadOutcome]:
        """See `IWatchedServer.renew`."""
        request = ReloadRequest(
            source=UNASKED,
            actor=ACTOR,
            recall=self.coordinator.generation,
            if_match=self.coordinator.etag,
            reason="secrets, keys or certificates changed; the generation that was rolled back to continues",
        )
        return self.coordinator.reload(request).addCallbacks(reload_outcome, self._overtaken)

    @staticmethod
    def _overtaken(failure: Failure) -> ReloadOutcome:
        failure.trap(PreconditionFailed)
        return ReloadOutcome.TRY_AGAIN

    def unsettled(self, why: str) -> Deferred[None]:
        """See `IWatchedServer.unsettled`."""
        return Deferred.fromCoroutine(self.coordinator.unsettled(UNASKED, ACTOR, why))
