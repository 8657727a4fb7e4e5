"""The interface of a server for its watcher."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from harn.watch.model import Digests, ReloadOutcome, Watched


class IWatchedServer(Interface):
    """The server that a watcher watches files for."""

    def watched() -> Watched:
        """Return the files to watch now."""

    def read(paths: Iterable[str]) -> Digests:
        """Digest files as they read now. Blocks: for a thread."""

    def reload(content: Digests) -> Deferred[ReloadOutcome]:
        """Request a reload that adopts this content or nothing."""

    def renew() -> Deferred[ReloadOutcome]:
        """Request a reload that keeps the live manifest and code, and reads everything else again."""

    def unsettled(why: str) -> Deferred[None]:
        """Report that nothing could be adopted for a while."""
