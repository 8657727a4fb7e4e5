"""The watcher: from what happens to files to one debounced, settled wish for a reload."""

from __future__ import annotations

from harn.watch.model import Outcome, Watched, outcome_of
from harn.watch.watcher import Watcher, Wishes

__all__ = ["Outcome", "Watched", "Watcher", "Wishes", "outcome_of"]
