"""
Logging of a server: the outputs and formats of records.

Text and pretty records go to standard error. JSON records go to standard output and, through a file that rotates, to
``logs/orchestrator.log`` in the state directory; then only announcements (records with ``announce=True``, such as the
server's URL) are on standard error too, as text. Announcements pass every level. The level may change while records are
written: see `Threshold`. Nothing here waits until a record is written: see `harn.observability.outputs`.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace
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

from harn.observability.log_limits import DEFAULT
from harn.observability.logfile import RotatingFile
from harn.observability.outputs import EXIT_LIMIT, Descriptor, Notices, Output, outputs, text_stream
from harn.observability.records import as_json, as_pretty, as_text

Form = Callable[[LogEvent], str]
"""Formats one record, with its line ends; see `harn.observability.records`."""

LOG_FILE = os.path.join("logs", "orchestrator.log")


class TextSink(Protocol):
    """A destination of text."""

    def write(self, text: str, /) -> object:
        """Write ``text``."""


class DeliveryLog:
    """
    Records of single deliveries: too many, and too expensive, to be made when no output takes them.

    :ivar active: callers check this before they build a record.
    """

    __slots__ = ("_log", "active")

    def __init__(self, log: Logger) -> None:
        self._log = log
        self.active = False

    def note(self, text: str, **fields: Any) -> None:
        """Log one step of a delivery; ``fields`` are ids: ``trace_id trigger_id binding event_id attempt ...``."""
        self._log.info(text, **fields)


deliveries = DeliveryLog(Logger(namespace="harn.deliveries"))
"""The process's log of deliveries; `threshold` sets whether it is active."""


class Threshold:
    """
    The minimum level of records that are logged.

    Harn's records pass from the level up; those of libraries from warnings up, and at ``debug`` from ``info`` up.

    :ivar level: one of `LEVELS`.
    :ivar predicate: applies it to each record.
    """

    def __init__(self) -> None:
        self.level = DEFAULT
        self.predicate = LogLevelFilterPredicate()
        self._log_format: str | None = None
        self.change(DEFAULT)

    def begin(self, log_format: str, level: str | None) -> None:
        """Start logging; None is `DEFAULT`, until a manifest sets another level."""
        self._log_format = log_format
        self.change(level or DEFAULT)

    def change(self, level: str) -> None:
        """Use another level from the next record on."""
        self.level = level
        ours = LogLevel.lookupByName(level)
        # Each is one assignment: a record that another thread writes meanwhile gets the old level or the new one.
        self.predicate.setLogLevelForNamespace("", LogLevel.info if level == "debug" else max(LogLevel.warn, ours))
        self.predicate.setLogLevelForNamespace("harn", ours)
        deliveries.active = self._log_format is not None and wants_deliveries(self._log_format, level)


threshold = Threshold()
"""The threshold of this process, whose records all pass one publisher of Twisted's."""


class Sinks(Struct, frozen=True, kw_only=True):
    """
    The outputs of the log's text.

    :ivar stdout: the standard output; None when it belongs to another program.
    :ivar stderr: the standard error; None when it belongs to another program.
    :ivar file: the log file in the state directory.
    :ivar colours: whether standard error shows them.
    :ivar journal: whether standard error is the journal's, which stamps each line with its time.
    :ivar worker: the name of the process where several write to the same outputs; each record has it.
    """

    stdout: TextSink | None
    stderr: TextSink
    file: TextSink
    colours: bool = False
    journal: bool = False
    worker: str | None = None


def process_sinks(state_dir: str, worker: str | None = None) -> Sinks:
    """
    Return non-blocking outputs for the standard descriptors of this process and the log file.

    ``sys.stdout`` and ``sys.stderr`` are replaced, so that no other output of this process blocks either; output that
    is not written when the process ends has `EXIT_LIMIT` seconds.
    """
    stdout, stderr = _standard_output("stdout", 1), _standard_output("stderr", 2)
    sys.stdout, sys.stderr = text_stream(stdout, 1), text_stream(stderr, 2)
    atexit.register(outputs.flush, EXIT_LIMIT)
    return Sinks(
        stdout=stdout,
        stderr=stderr,
        file=outputs.open("file", RotatingFile(os.path.join(state_dir, LOG_FILE))),
        colours=wants_colours(os.environ, os.isatty(2)),
        journal=is_journal(os.environ, 2),
        worker=worker,
    )


def wants_colours(environ: Mapping[str, str], is_terminal: bool) -> bool:
    """Return whether to write colours: on a terminal that has them, unless ``NO_COLOR`` is set (no-color.org)."""
    return is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def is_journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """
    Return whether a descriptor is connected to systemd's journal.

    Source: systemd.exec(5), ``JOURNAL_STREAM``: device and inode of the stream, which a child may have replaced.
    """
    device, colon, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not colon:
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _standard_output(name: str, number: int) -> Output:
    """Open the output of a standard descriptor; one that was closed may be another file's meanwhile."""
    if getattr(sys, f"__{name}__") is None:
        number = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return outputs.open(name, Descriptor(number))


def start_logging(log_format: str, log_level: str | None, sinks: Sinks, beginner: LogBeginner) -> None:
    """
    Send every record to its outputs from now on, including those buffered since the process began.

    :param log_format: ``text``, ``pretty`` or ``json``.
    :param log_level: one of `LEVELS`; None for the default, until `threshold` is changed.
    """
    threshold.begin(log_format, log_level)
    beginner.beginLoggingTo(make_observers(log_format, sinks), redirectStandardIO=False)


def add_logging(log_format: str, log_level: str | None, sinks: Sinks, publisher: LogPublisher) -> None:
    """
    Send every record to its outputs, beside the observers of others, such as twistd; see `start_logging`.

    Standard output is twistd's: JSON records go to the file alone.
    """
    threshold.begin(log_format, log_level)
    for observer in make_observers(log_format, replace(sinks, stdout=None)):
        publisher.addObserver(observer)


def wants_deliveries(log_format: str, log_level: str) -> bool:
    """Return whether records of single deliveries are made: in JSON from ``info``, in text at ``debug``."""
    return log_level == "debug" or (log_format == "json" and log_level == "info")


def make_observers(log_format: str, sinks: Sinks) -> list[ILogObserver]:
    """Make the observers of one format; see the module's description."""
    observers = _plain_observers(log_format, sinks)
    return observers if sinks.worker is None else [Naming(each, sinks.worker) for each in observers]


def _plain_observers(log_format: str, sinks: Sinks) -> list[ILogObserver]:
    if log_format == "json":
        machines = [sinks.file] if sinks.stdout is None else [sinks.stdout, sinks.file]
        return [
            wanted(LogWriter(as_json, machines)),
            FilteringLogObserver(LogWriter(as_text, [sinks.stderr]), [only_announcements]),
        ]
    times = not sinks.journal
    if log_format == "pretty":
        return [wanted(LogWriter(partial(as_pretty, colours=sinks.colours, times=times), [sinks.stderr]))]
    return [wanted(LogWriter(partial(as_text, times=times), [sinks.stderr]))]


@implementer(ILogObserver)
class Naming(Struct, frozen=True):
    """Adds the name of the process to each record, as ``worker``."""

    observer: ILogObserver
    worker: str

    def __call__(self, event: LogEvent) -> None:
        """Pass on one record with the name."""
        self.observer({**event, "worker": self.worker})


def wanted(observer: ILogObserver) -> ILogObserver:
    """Make an observer that passes on announcements, and records that pass the `threshold`."""
    return FilteringLogObserver(observer, [announcements_pass, threshold.predicate])


@provider(ILogFilterPredicate)
def announcements_pass(event: LogEvent) -> Any:
    """Pass announcements, and leave the others to the next predicate."""
    return PredicateResult.yes if event.get("announce") else PredicateResult.maybe


@provider(ILogFilterPredicate)
def only_announcements(event: LogEvent) -> Any:
    """Pass announcements, and nothing else."""
    return PredicateResult.yes if event.get("announce") else PredicateResult.no


@implementer(ILogObserver)
class LogWriter(Notices):
    """Renders each record once and writes it to every sink; a failing sink does not raise."""

    def __init__(self, render: Form, sinks: list[TextSink]) -> None:
        self._render = render
        self._sinks = sinks
        for sink in sinks:
            if isinstance(sink, Output):
                sink.notices = self

    def __call__(self, event: LogEvent) -> None:
        """Write one record to every sink that accepts it."""
        text = self._render(event)
        for sink in self._sinks:
            try:
                sink.write(text)
            except (OSError, ValueError):
                # A closed stream costs this record here, and nothing else.
                continue

    def dropped_notice(self, output: str, dropped: int) -> str:
        """Return a record of how many records were dropped."""
        return self._render(
            {
                "log_format": "{dropped} log records were dropped: {output} could not be written to",
                "log_level": LogLevel.warn,
                "log_namespace": "harn.log",
                "log_time": time.time(),
                "dropped": dropped,
                "output": output,
            }
        )
