"""
Logging of a server: which records go where, and in which form.

Text and pretty records go to standard error. JSON records go to standard output and, through a file that rotates, to
``logs/orchestrator.log`` in the state directory; then only announcements (records with ``announce=True``, such as the
one that tells the URL) are on standard error too, as text. Announcements pass every level.
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
"""The one log of deliveries; `start_logging` says whether anybody reads it."""


def start_logging(
    log_format: str, log_level: str, state_dir: str, stdout: TextSink, stderr: TextSink, beginner: LogBeginner
) -> None:
    """
    Send every record where it belongs from now on, those that were kept since the process began too.

    :param log_format: ``text``, ``pretty`` or ``json``; ``log_level``: a name of ``twisted.logger.LogLevel``.
    """
    deliveries.active = wants_deliveries(log_format, log_level)
    observers = make_observers(log_format, log_level, state_dir, stdout, stderr)
    beginner.beginLoggingTo(observers, redirectStandardIO=False)


def add_logging(log_format: str, log_level: str, state_dir: str, stderr: TextSink, publisher: LogPublisher) -> None:
    """
    Send every record where it belongs beside what others, such as twistd, do with it.

    Standard output is theirs: JSON records go to the file alone.
    """
    deliveries.active = wants_deliveries(log_format, log_level)
    for observer in make_observers(log_format, log_level, state_dir, None, stderr):
        publisher.addObserver(observer)


def wants_deliveries(log_format: str, log_level: str) -> bool:
    """Tell whether records of single deliveries are made: for machines from ``info``, for people at ``debug``."""
    return log_level == "debug" or (log_format == "json" and log_level == "info")


def make_observers(
    log_format: str, log_level: str, state_dir: str, stdout: TextSink | None, stderr: TextSink
) -> list[ILogObserver]:
    """Make the observers of one format; see the module's description."""
    if log_format == "json":
        file = RotatingFile(os.path.join(state_dir, LOG_FILE))
        return [
            wanted(log_level, writer(as_json, [file] if stdout is None else [stdout, file])),
            FilteringLogObserver(writer(as_text, [stderr]), [only_announcements]),
        ]
    if log_format == "pretty":
        is_terminal = getattr(stderr, "isatty", lambda: False)()
        return [wanted(log_level, writer(partial(as_pretty, colours=is_terminal), [stderr]))]
    return [wanted(log_level, writer(as_text, [stderr]))]


def wanted(log_level: str, observer: ILogObserver) -> ILogObserver:
    """
    Pass on our records from ``log_level`` up and announcements; of libraries, warnings and worse.

    At ``debug`` the libraries' ``info`` passes, too.
    """
    of_libraries = LogLevel.info if log_level == "debug" else max(LogLevel.warn, LogLevel.lookupByName(log_level))
    levels = LogLevelFilterPredicate(defaultLogLevel=of_libraries)
    levels.setLogLevelForNamespace("harn", LogLevel.lookupByName(log_level))
    return FilteringLogObserver(observer, [announcements_pass, levels])


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
