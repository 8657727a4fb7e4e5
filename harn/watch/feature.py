"""The watcher of a server, which asks for a reload when a file of the live generation changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harn.errors import PreconditionFailed
from harn.reload.coordinator import Coordinator
from harn.reload.inputs import ExternalInputs, current_digests
from harn.reload.reader import FileReader
from harn.reload.report import ReloadRequest
from harn.server import Server
from harn.watch import ReloadOutcome, ReloadRequests, Watched, Watcher, reload_outcome


def install(server: Server) -> None:
    """Add the watcher."""
    hash_key = server[ExternalInputs].hash_key
    watcher = make_watcher(server[FileReader], server[Coordinator], server.options.manifest, hash_key)
    server.background.add(watcher)


def make_watcher(files: FileReader, coordinator: Coordinator, manifest: str, hash_key: bytes) -> Watcher:
    """Make the service that reloads when a file of the live generation changes."""

    def watched() -> Watched:
        live = coordinator.current
        inputs, pin = (None, None) if live is None else (live.inputs, live.pin)
        failing = coordinator.last_failed is not None or coordinator.waiting is not None
        return Watched.of(inputs, manifest, pin, failing=failing)

    def read(paths: Iterable[str]) -> Mapping[str, str]:
        live, wanted = coordinator.current, frozenset(paths)
        keyed = frozenset() if live is None else frozenset(live.inputs.files) - live.inputs.plain_files
        return current_digests(wanted, wanted - keyed, hash_key)

    def reload(content: Mapping[str, str]) -> Deferred[ReloadOutcome]:
        request = ReloadRequest(source="file_watch", actor="watch", expected=content)
        return coordinator.reload(request).addCallback(reload_outcome)

    def renew() -> Deferred[ReloadOutcome]:
        request = ReloadRequest(
            source="file_watch",
            actor="watch",
            recall=coordinator.generation,
            if_match=coordinator.etag,
            reason="secrets, keys or certificates changed; the generation that was rolled back to continues",
        )
        return coordinator.reload(request).addCallbacks(reload_outcome, overtaken)

    def overtaken(failure: Failure) -> ReloadOutcome:
        failure.trap(PreconditionFailed)
        return ReloadOutcome.TRY_AGAIN

    def unsettled(why: str) -> Deferred[None]:
        return Deferred.fromCoroutine(coordinator.unsettled("file_watch", "watch", why))

    return Watcher(files, watched, read, ReloadRequests(reload=reload, renew=renew, unsettled=unsettled))
