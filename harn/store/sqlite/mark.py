"""
The high-water mark of the event log, in a small file beside it, so that a start detects lost records.

A write-ahead log that was cut short or removed, and an older copy in the place of a database, are sound to SQLite: it
continues from there without a word. The mark is written after each commit, so that it never says more than is on disk;
it is not forced there itself, so that after a failure of the system it may say less.
"""

from __future__ import annotations

import os
import sqlite3
import zlib

from msgspec import Struct
from twisted.logger import Logger

from harn.errors import StateDirectoryUnusable
from harn.store.database import Numbers
from harn.store.sqlite.connection import Session

log = Logger(namespace="harn.store")

SUFFIX = ".mark"
"""What follows the database's name in the mark's."""

_WIDTH = 120


class Mark(Struct, frozen=True):
    """The highest numbers of deliveries, attempts and records that were given, and of the servers that ran."""

    delivery: int = 0
    attempt: int = 0
    record: int = 0
    server: int = 0

    @classmethod
    def of(cls, numbers: Numbers, server: int) -> Mark:
        """Return the mark of an event log with these numbers."""
        return cls(numbers.delivery, numbers.attempt, numbers.record, server)

    @classmethod
    def found(cls, connection: sqlite3.Connection, numbers: Numbers) -> Mark:
        """Return the mark of a database whose rows have these numbers."""
        (server,) = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'servers'"
        ).fetchone()
        return cls.of(numbers, server)

    def encode(self) -> bytes:
        """Write it as one line of a fixed width, which ends with its checksum."""
        text = f"delivery {self.delivery} attempt {self.attempt} record {self.record} server {self.server}".encode()
        return (text + b" crc %08x" % zlib.crc32(text)).ljust(_WIDTH) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Mark | None:
        """Read it; None for what is not whole."""
        text, _, checksum = line.strip().rpartition(b" crc ")
        if checksum != b"%08x" % zlib.crc32(text):
            return None
        words = text.split()
        return cls(*map(int, words[1::2])) if len(words) == 8 else None


def shortfall(noted: Mark, found: Mark) -> list[str]:
    """Return in words each number by which a database has not come as far as was noted."""
    return [
        f"{name} {there} of {was}"
        for name, there, was in (
            ("deliveries end at", found.delivery, noted.delivery),
            ("attempts end at", found.attempt, noted.attempt),
            ("records end at", found.record, noted.record),
            ("servers end at", found.server, noted.server),
        )
        if there < was
    ]


class HighWaterMark:
    """
    Keeps the mark of a database. Used in the writer's thread.

    :param path: of the database.
    """

    def __init__(self, path: str) -> None:
        self.path = path + SUFFIX
        self._database = path
        self._descriptor: int | None = None
        self._written: Mark | None = None
        self._failed = False

    def read(self) -> Mark | None:
        """
        Return the mark that was written; None when there is none, or it is not complete.

        :raises OSError: it is there and cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                return Mark.decode(file.readline())
        except FileNotFoundError:
            return None

    def check(self, noted: Mark | None, session: Session) -> None:
        """
        Compare the database with what was noted before it was opened.

        :raises StateDirectoryUnusable: it has not come so far; says what may have happened, and what to do.
        """
        short = shortfall(Mark() if noted is None else noted, Mark.found(session.connection, session.numbers))
        if short:
            raise StateDirectoryUnusable(
                f"the event log {self._database} has lost what was on disk ({', '.join(short)}): its write-ahead log"
                f" ({os.path.basename(self._database)}-wal) was removed or cut short, or an older copy was put in its"
                f" place; put the right files back, or accept the loss and remove {self.path}"
            )

    def write(self, numbers: Numbers, server: int) -> None:
        """Record the numbers of the database, after a commit; a failure is logged once."""
        mark = Mark.of(numbers, server)
        if mark == self._written:
            return
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, mark.encode(), 0)
        except OSError as error:
            if not self._failed:
                log.warn(
                    "{path} cannot be written: {why}; a start will not notice if the event log loses something",
                    path=self.path,
                    why=error.strerror,
                )
            self._failed = True
        else:
            self._written, self._failed = mark, False

    def close(self) -> None:
        """Close the file; it stays."""
        descriptor, self._descriptor = self._descriptor, None
        self._written = None
        if descriptor is not None:
            os.close(descriptor)
