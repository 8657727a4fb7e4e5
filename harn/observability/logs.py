"""
Logging of a server: which records go where, and in which form.

Text and pretty records go to standard error. JSON records go to standard output and, through a file that rotates, to
``logs/orchestrator.log`` in the state directory; then only announcements (records with ``announce=True``, such as the
one that tells the URL) are on standard error too, as text. Announcements pass every level. The level may change while
records are written: see `Threshold`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    PredicateResult,
)
from zope.interface import implementer, provider

from harn.observability.levels import DEFAULT
from harn.observability.logfile import RotatingFile
from harn.observability.records import as_json, as_pretty, as_text

LOG_FILE = os.path.join("logs", "orchestrator.log")


class TextSink(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Write ``text``."""


class DeliveryLog:
    """
    Records of single deliveries: too many, and each too dear, to be made when nobody reads them.

    :ivar active: callers ask this before they put a record together.
    """

    __slots__ = ("_log", "active")

    def __init__(self, log: Logger) -> None:
        self._log = log
        self.active = False

    def note(self, text: str, **fields: Any) -> None:
        """Log one step of a delivery; ``fields`` are ids: ``trace_id trigger_id binding_key event_id attempt ...``."""
        self._log.info(text, **fields)


deliveries = DeliveryLog(Logger(namespace="harn.deliveries"))
"""The one log of deliveries; `threshold` says whether anybody reads it."""


class Threshold:
    """
    How urgent a record must be to be logged.

    Of ours, records from the level up pass; of libraries, warnings and worse, and at ``debug`` their ``info`` too.

    :ivar level: one of `LEVELS`.
    :ivar predicate: asks it of each record.
    """

    def __init__(self) -> None:
        self.level = DEFAULT
        self.predicate = LogLevelFilterPredicate()
        self._log_format: str | None = None
        self.change(DEFAULT)

    def begin(self, log_format: str, level: str | None) -> None:
        """Logging begins; None is `DEFAULT`, until a manifest says otherwise."""
        self._log_format = log_format
        self.change(level or DEFAULT)

    def change(self, level: str) -> None:
        """Use another level from the next record on."""
        self.level = level
        ours = LogLevel.lookupByName(level)
        # Each is one assignment: a record that another thread writes meanwhile is judged by the old one or the new.
        self.predicate.setLogLevelForNamespace("", LogLevel.info if level == "debug" else max(LogLevel.warn, ours))
        self.predicate.setLogLevelForNamespace("harn", ours)
        deliveries.active = self._log_format is not None and wants_deliveries(self._log_format, level)


threshold = Threshold()
"""The one of this process, whose records all go through one publisher of Twisted's."""


def start_logging(
    log_format: str, log_level: str | None, state_dir: str, stdout: TextSink, stderr: TextSink, beginner: LogBeginner
) -> None:
    """
    Send every record where it belongs from now on, those that were kept since the process began too.

    :param log_format: ``text``, ``pretty`` or ``json``.
    :param log_level: one of `LEVELS`; None for the default, until `threshold` is changed.
    """
    threshold.begin(log_format, log_level)
    beginner.beginLoggingTo(make_observers(log_format, state_dir, stdout, stderr), redirectStandardIO=False)


def add_logging(
    log_format: str, log_level: str | None, state_dir: str, stderr: TextSink, publisher: LogPublisher
) -> None:
    """
    Send every record where it belongs beside what others, such as twistd, do with it; see `start_logging`.

    Standard output is theirs: JSON records go to the file alone.
    """
    threshold.begin(log_format, log_level)
    for observer in make_observers(log_format, state_dir, None, stderr):
        publisher.addObserver(observer)


def wants_deliveries(log_format: str, log_level: str) -> bool:
    """Tell whether records of single deliveries are made: for machines from ``info``, for people at ``debug``."""
    return log_level == "debug" or (log_format == "json" and log_level == "info")


def make_observers(log_format: str, state_dir: str, stdout: TextSink | None, stderr: TextSink) -> list[ILogObserver]:
    """Make the observers of one format; see the module's description."""
    if log_format == "json":
        file = RotatingFile(os.path.join(state_dir, LOG_FILE))
        return [
            wanted(writer(as_json, [file] if stdout is None else [stdout, file])),
            FilteringLogObserver(writer(as_text, [stderr]), [only_announcements]),
        ]
    if log_format == "pretty":
        is_terminal = getattr(stderr, "isatty", lambda: False)()
        return [wanted(writer(partial(as_pretty, colours=is_terminal), [stderr]))]
    return [wanted(writer(as_text, [stderr]))]


def wanted(observer: ILogObserver) -> ILogObserver:
    """Pass on announcements, and what passes the `threshold`."""
    return FilteringLogObserver(observer, [announcements_pass, threshold.predicate])


@provider(ILogFilterPredicate)
def announcements_pass(event: LogEvent) -> Any:
    """Let announcements through, and leave the others to the next predicate."""
    return PredicateResult.yes if event.get("announce") else PredicateResult.maybe


@provider(ILogFilterPredicate)
def only_announcements(event: LogEvent) -> Any:
    """Let announcements through and nothing else."""
    return PredicateResult.yes if event.get("announce") else PredicateResult.no


def writer(render: Callable[[LogEvent], str], sinks: list[TextSink]) -> ILogObserver:
    """Make an observer that renders each record once and writes it to every sink; no sink can fail its caller."""
    return Writer(render, sinks)


@implementer(ILogObserver)
class Writer:
    """Renders records and writes them; see `writer`."""

    def __init__(self, render: Callable[[LogEvent], str], sinks: list[TextSink]) -> None:
        self._render = render
        self._sinks = sinks

    def __call__(self, event: LogEvent) -> None:
        """Write one record to every sink that can take it."""
        text = self._render(event)
        for sink in self._sinks:
            try:
                sink.write(text)
                flush = getattr(sink, "flush", None)
                if flush is not None:
                    flush()
            except (OSError, ValueError):
                # A reader that went away, a full disk or a closed stream costs this record here, and nothing else.
                continue
