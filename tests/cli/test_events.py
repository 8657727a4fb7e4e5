"""``events``: records by pages, from a server or its store, and as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.client import ServerUnreachable
from harn.cli.events import INTERVAL, FoundRecords, follow_pages, read_pages
from harn.cli.place import ServerTarget
from harn.orchestrator.record_operations import RecordInfo
from tests.cli.looks import Waits
from tests.cli.test_commands import CREDENTIALS, CommandCase


def record(number: int) -> RecordInfo:
    """Make a record."""
    return RecordInfo(number=number, kind="k", payload={}, headers={}, occurred_at=0.0)


def document(number: int) -> dict[str, Any]:
    """Make a record as the server writes it."""
    made: dict[str, Any] = to_builtins(record(number))
    return made


class ListSource:
    """
    Records from a list, in pages of at most ``page``.

    :ivar failures: looks that fail first.
    """

    def __init__(self, numbers: Sequence[int], page: int = 1000, failures: int = 0) -> None:
        self.numbers = list(numbers)
        self.page = page
        self.failures = failures

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Return one page."""
        if self.failures:
            self.failures -= 1
            raise ServerUnreachable("gone")
        return [record(number) for number in self.numbers if number > after][: min(limit, self.page)]


class PageTests(SynchronousTestCase):
    """Reading page by page."""

    @given(st.sets(st.integers(1, 60)), st.integers(0, 60), st.none() | st.integers(1, 70), st.integers(1, 7))
    def test_all_pages(self, numbers: set[int], after: int, limit: int | None, page: int) -> None:
        """However large the pages are and wherever numbers are missing, each record comes once, in order."""
        source = ListSource(sorted(numbers), page)
        found = [each.number for each in read_pages(source, "t", after, limit)]
        self.assertEqual(found, [number for number in sorted(numbers) if number > after][:limit])

    def test_follow(self) -> None:
        """Following continues where it was, also when the server did not answer meanwhile."""
        source = ListSource([1, 2])

        class Restart(Waits):
            """The server is restarted during the first wait."""

            def wait(self, seconds: float) -> bool:
                if not self.seconds:
                    source.numbers, source.failures = [1, 2, 3, 4], 1
                return super().wait(seconds)

        waits = Restart()
        found = follow_pages(source, "t", 0, 4, waits)
        self.assertEqual([each.number for each in found], [1, 2, 3, 4])
        self.assertEqual(waits.seconds, [INTERVAL] * 2)

    def test_follow_needs_a_server_to_begin(self) -> None:
        """A server that does not answer the first look is an error, not something to wait for."""
        followed = follow_pages(ListSource([], failures=1), "t", 0, None, Waits())
        self.assertRaises(ServerUnreachable, next, followed)


class EventsTests(CommandCase):
    """The command."""

    def test_json_lines(self) -> None:
        """Each record is one line of JSON; the topic is one segment of the path."""
        server = self.serve((200, {"topic": "t", "records": [document(3), document(5)], "latest": 5}))
        result = self.harn("events", "a/t", "--after", "2", "--limit", "2")
        self.assertEqual([json.loads(line) for line in result.stdout.splitlines()], [document(3), document(5)])
        self.assertEqual(server.seen[0].target, "/admin/events/a%2Ft?after=2&limit=2")

    def test_follow_ends_at_its_limit(self) -> None:
        """With ``--follow`` and ``--limit`` the command ends when it has them all."""
        self.serve((200, {"topic": "t", "records": [document(1)], "latest": 1}))
        result = self.harn("events", "t", "--follow", "--limit", "1")
        self.assertEqual((result.exit_code, len(result.stdout.splitlines())), (0, 1))

    def test_another_address(self) -> None:
        """A server that does not answer is located again at the next look: a restarted one may have another address."""
        given = {"config": None, "state_dir": self.state_dir, **dict.fromkeys(("admin_url", "cacert", "insecure"))}
        records = FoundRecords(ServerTarget.of_options({**given, "timeout": 10.0}, CREDENTIALS))
        for number in (1, 2):
            self.serve((200, {"topic": "t", "records": [document(number)], "latest": number}))
            self.assertEqual([each.number for each in records.read("t", 0, 10)], [number])
            self.doCleanups()
            self.assertRaises(ServerUnreachable, records.read, "t", 0, 10)

    def test_no_store(self) -> None:
        """Where there is neither a server nor a store, the error names the place."""
        self.assert_failed(self.harn("events", "t"), self.state_dir)

    def test_usage(self) -> None:
        """A limit below one and a number below zero are wrong usage."""
        for arguments in (["--limit", "0"], ["--after", "-1"], ["--nonsense"]):
            self.assertEqual(self.harn("events", "t", *arguments).exit_code, 2)
