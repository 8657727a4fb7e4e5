"""The watcher: from file events to debounced reloads of settled content."""

from __future__ import annotations

from harn.watch.model import ReloadOutcome, Watched, reload_outcome
from harn.watch.watcher import ReloadRequests, Watcher

__all__ = ["ReloadOutcome", "ReloadRequests", "Watched", "Watcher", "reload_outcome"]
