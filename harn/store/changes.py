"""
Changes that other servers on the same store have made: each is announced under a topic, with the commit that makes it.

A topic is the name of a checkpoint (`harn.store.generations.ICheckpoints`), for its value; `GENERATIONS`, `JOBS`; or a
name that a caller of `IChanges.notify` and its subscribers have agreed on. What changes with each delivery is not
announced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from harn.lifecycle import Lifecycle

GENERATIONS = "/generations"
"""A generation was adopted."""
JOBS = "/jobs"
"""A job was made, or its state changed. No checkpoint has a name with a slash at its beginning."""


class IChanges(Interface):
    """A store that several servers may share."""

    def follow(lifecycle: Lifecycle) -> None:
        """
        Emit `harn.lifecycle.StoreChanged` to ``lifecycle`` for what other servers commit, from `IStore.open` on.

        Called once, before `open`. It says that there is something to read, and not what: a subscriber reads the store
        again. Changes of one moment may come as one event, and a change may be announced more than once. Where changes
        may have been missed (at the start, after the connection was lost, and once a minute in any case) the event has
        no topics. A store that one server uses emits nothing.
        """

    def notify(topic: str) -> Deferred[None]:
        """
        Send a topic to the other servers, by a commit of its own; fires when it is on disk.

        A method of an idea that writes calls ``session.notify(topic)`` instead, and so with its own commit.
        """
