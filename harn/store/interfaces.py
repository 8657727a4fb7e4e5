"""
The interface of a store.

Every method may be called from the reactor thread and never blocks it. Every method that returns a Deferred may fail
with `harn.errors.EventLogUnavailable`: then nothing of the unit counts as written. "Durable" means on disk before the
Deferred fires. Units handed over in one reactor turn share one commit; a unit that fails fails alone.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Attribute

from harn.store.changes import IChanges
from harn.store.checkpoints import ICheckpoints
from harn.store.deliveries import IDeliveries, IDeliveryLists
from harn.store.event_log import IEventLog
from harn.store.generations import IGenerations
from harn.store.inbox import IInbox
from harn.store.jobs import IJobs
from harn.store.recovery import IHeartbeat, IRecovery
from harn.store.retention import IRetention
from harn.store.servers import IServers
from harn.store.statistics import IStatistics, ITotals


class IStore(IHeartbeat, IRetention, IChanges):
    """One store: its ideas, and its life cycle."""

    inbox: IInbox = Attribute("Accepts events.")
    deliveries: IDeliveries = Attribute("Where each accepted delivery stands.")
    lists: IDeliveryLists = Attribute("Lists of deliveries, for people.")
    recovery: IRecovery = Attribute("Takes over what other servers left.")
    event_log: IEventLog = Attribute("The append-only record.")
    generations: IGenerations = Attribute("Numbers of generations and binding versions, and their content.")
    jobs: IJobs = Attribute("What operators have it do with many deliveries.")
    statistics: IStatistics = Attribute("Counts and durations within a window of time.")
    totals: ITotals = Attribute("Totals by trigger.")
    servers: IServers = Attribute("The servers on the store.")
    checkpoints: ICheckpoints = Attribute("JSON values that outlast a restart.")
    backend: str = Attribute("For example ``sqlite``: as the state file shows it.")
    location: str | None = Attribute("A path or URL without credentials, or None.")
    incarnation: int = Attribute(
        "This server's row number; the ``owner`` of deliveries that it accepts. Set by `open` and `rejoin`."
    )
    is_shared: bool = Attribute("Whether several servers may use it at the same time.")

    def available() -> bool:
        """
        Return False while the last write failed, and from `abandon` on; True again after one succeeded. Cheap.
        """

    def open() -> Deferred[None]:
        """
        Open or create, check the schema, register this server.

        :raises StateDirectoryUnusable: with a message that says what to do.
        """

    def rejoin() -> Deferred[int]:
        """
        Register this server under a new number, after others took over its deliveries; return the number.

        Until then every write fails with `ServerFenced`. What it accepted under its old number is not its own.

        :raises EventLogUnavailable: the store cannot be written.
        """

    def abandon(reason: str) -> None:
        """Write nothing more until a restart, and log why, once: each later write fails with `EventLogGone`."""

    def close() -> Deferred[None]:
        """Write everything that was submitted, then close. Idempotent."""
