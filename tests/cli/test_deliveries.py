"""``deliveries``, ``delivery`` and ``dlq``: from the store that a server left, and how they are drawn."""

from __future__ import annotations

import json
import os
from io import StringIO

from click.testing import CliRunner, Result
from msgspec import structs
from rich.console import Console
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.cli.deliveries import age, describe, groups_of, rows_of
from harn.cli.main import cli
from harn.cli.sources import read_list
from harn.cli.terminal import print_rows
from harn.deliveries.describing import (
    AttemptInfo,
    DeadGroupInfo,
    DeadLetters,
    DeliveryDetail,
    DeliveryInfo,
    DeliveryList,
)
from harn.deliveries.operations import ListDeliveries
from harn.model.delivery import DEAD, WAITING, DeadLetter
from harn.orchestrator.state_directory import replace_file
from harn.orchestrator.stores import DATABASE
from harn.store.jobs import JobFilter, NewJob
from harn.store.lock import state_path
from harn.store.sqlite.store import DATABASE_FILE, SQLiteStore
from harn.testing.handlers import load_fixture
from harn.testing.stores.kit import NOW, accept_of, attempt_of, new_delivery, settlement_of

EVENT_ID = "trigger_evt_0190b5e2-7a31-7c55-a1b2-0123456789ab"
LETTER = DeadLetter(reason="retry_exhausted", error_class="handler_error", error="ValueError: no")


def info(event_id: str = EVENT_ID, state: str = "dead") -> DeliveryInfo:
    return DeliveryInfo(
        event_id=event_id,
        trigger_id="github-issues",
        binding="github-issues@v1",
        provider="github",
        kind="issues.opened",
        state=state,
        reason="retry_exhausted",
        error_class="handler_error",
        error="ValueError: no\nmore",
        attempts=3,
        received_at="2027-01-15T08:00:00.000Z",
        due_at=None,
        ended_at=None,
        replay_of=None,
        replayed_as=None,
    )


class OfflineTests(TestCase):
    """A state directory that a server has left."""

    async def write(self) -> str:
        """Make a state directory with a dead letter, one that waits and 300 more that are ready."""
        directory = self.mktemp()
        os.mkdir(directory)
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        names = ["dead", "waits", *(f"e{number}" for number in range(300))]
        numbers = await store.inbox.accept(accept_of(*map(new_delivery, names)))
        failed = attempt_of(1, "failed", error_class="handler_error", error="ValueError: no", traceback="File x")
        assert numbers[0] is not None
        assert numbers[1] is not None
        await store.deliveries.settle(settlement_of(numbers[0], DEAD, dead=LETTER, attempt=failed))
        await store.deliveries.settle(settlement_of(numbers[1], WAITING, due_at=NOW + 5, attempt=failed))
        await store.close()
        return directory

    def run_in(self, directory: str, *words: str) -> Result:
        words = ("orchestrator", *words, "--state-dir", directory)
        return CliRunner().invoke(cli, words, prog_name="harn")

    def test_same_file(self) -> None:
        """The commands read the file that the store makes."""
        self.assertEqual(DATABASE, DATABASE_FILE)

    async def test_list(self) -> None:
        """Lists are filtered and cut; JSON is one document, and what continues is said on standard error."""
        directory = await self.write()
        found = json.loads(self.run_in(directory, "deliveries", "--state", "dead", "--json").stdout)
        self.assertEqual(([each["event_id"] for each in found["deliveries"]], found["more"]), (["dead"], False))
        result = self.run_in(directory, "deliveries", "--limit", "2")
        self.assertIn("there are more; see them with --before", result.stderr)
        self.assertEqual(len(result.stdout.splitlines()), 3)
        both = ("deliveries", "--state", "dead", "--state", "waiting", "--trigger", "gh", "--kind", "ping", "--json")
        self.assertEqual(len(json.loads(self.run_in(directory, *both).stdout)["deliveries"]), 2)
        where = ("deliveries", "--where", "event.dedupe_key == 'waits'", "--json")
        self.assertEqual(len(json.loads(self.run_in(directory, *where).stdout)["deliveries"]), 1)
        self.assertEqual(self.run_in(directory, "deliveries", "--trigger", "b").stdout, "Deliveries:\n- none\n")

    async def test_unknown_trigger(self) -> None:
        """An empty list of a trigger that was not served says so, and names the nearest; a known one is just empty."""
        directory = await self.write()
        state = {"triggers": [{"id": "gh"}, {"id": "orders"}], "status": "stopped"}
        replace_file(state_path(directory), json.dumps(state).encode())
        for words in (("deliveries",), ("dlq",), ("dlq", "--list"), ("deliveries", "--json")):
            wrong = self.run_in(directory, *words, "--trigger", "oders")
            self.assertEqual(
                (wrong.exit_code, wrong.stderr), (0, "there is no trigger 'oders'; did you mean 'orders'?\n")
            )
            self.assertEqual(self.run_in(directory, *words, "--trigger", "orders").stderr, "")
        far = self.run_in(directory, "deliveries", "--trigger", "xyz")
        self.assertEqual(far.stderr, "there is no trigger 'xyz'; the server has: gh, orders\n")

    async def test_jobs(self) -> None:
        """Jobs are listed and shown out of the store; changing one needs a server."""
        directory = await self.write()
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        new = NewJob(operation="discard", actor="key:1", filter=JobFilter(state="dead"), rate=2.0, created_at=NOW)
        job = await store.jobs.create(new, [1])
        await store.jobs.discard([1], NOW, job.job_id)
        await store.close()
        (listed,) = json.loads(self.run_in(directory, "jobs", "--json").stdout)["jobs"]
        self.assertEqual((listed["job"], listed["operation"], listed["done"]), (1, "discard", 1))
        shown = json.loads(self.run_in(directory, "jobs", "--show", "1", "--json").stdout)
        self.assertEqual(
            (shown["items"], shown["after"], shown["filter"]), ([{"event_id": "dead"}], None, {"state": "dead"})
        )
        self.assertIn(
            "job 1 running: 1 of 1 discarded, 0 skipped", self.run_in(directory, "jobs", "--show", "1").stdout
        )
        for words, said in (("--show", "7"), "there is no job 7"), (("--pause", "1"), "no server runs on"):
            failed = self.run_in(directory, "jobs", *words)
            self.assertEqual((failed.exit_code, failed.stdout), (1, ""))
            self.assertIn(f"error: {said}", failed.stderr)

    async def test_usage(self) -> None:
        """A wrong expression or state is an error of usage."""
        directory = await self.write()
        for words in (("--where", "attempts >"), ("--state", "lost"), ("--since", "soon"), ("--limit", "0")):
            result = self.run_in(directory, "deliveries", *words)
            self.assertEqual((result.exit_code, result.stdout), (2, ""), words)

    async def test_show(self) -> None:
        """One delivery is shown whole; an unknown id is an error that says what to do."""
        directory = await self.write()
        shown = self.run_in(directory, "delivery", "dead").stdout
        for line in ("dead: dead (retry_exhausted)", "Timeline:", "Traceback of attempt 1:", "  File x", "Event:"):
            self.assertIn(line, shown.splitlines())
        found = json.loads(self.run_in(directory, "delivery", "dead", "--json").stdout)
        self.assertEqual(list(found["attempts"][0])[:5], ["number", "binding", "started_at", "ended_at", "outcome"])
        self.assertEqual((found["event"]["id"], found["timeline"][0]["what"]), ("dead", "received"))
        unknown = self.run_in(directory, "delivery", "nope")
        self.assertEqual((unknown.exit_code, unknown.stdout), (1, ""))
        self.assertIn("error: no delivery has the id 'nope'; `harn orchestrator deliveries` lists", unknown.stderr)

    async def test_dead_letters(self) -> None:
        """Dead letters are counted in groups, or listed."""
        directory = await self.write()
        (group,) = json.loads(self.run_in(directory, "dlq", "--json").stdout)["groups"]
        self.assertEqual((group["trigger_id"], group["count"], group["example_id"]), ("gh", 1, "dead"))
        listed = json.loads(self.run_in(directory, "dlq", "--list", "--json").stdout)
        self.assertEqual([each["event_id"] for each in listed["deliveries"]], ["dead"])
        self.assertEqual(self.run_in(directory, "dlq", "--trigger", "b").stdout, "Dead letters:\n- none\n")

    async def test_export(self) -> None:
        """A fixture is printed, or written to a file; a file that is not one is not sent anywhere."""
        directory = await self.write()
        printed = json.loads(self.run_in(directory, "export", "dead").stdout)
        self.assertEqual((printed["format"], printed["body"]), ("harn-fixture/1", '{"n": 1}'))
        path = self.mktemp()
        self.assertEqual(self.run_in(directory, "export", "dead", path).stdout, f"exported dead to {path}\n")
        self.assertEqual(load_fixture(path).raw_body, b'{"n": 1}')
        again = self.run_in(directory, "export", "waits", path)
        self.assertEqual(
            (again.exit_code, again.stdout, again.stderr),
            (1, "", f"error: {path} is there already; give another name, or --force to replace it\n"),
        )
        self.assertEqual(load_fixture(path).id, "dead")
        self.assertEqual(self.run_in(directory, "export", "waits", path, "--force").exit_code, 0)
        self.assertEqual(load_fixture(path).id, "waits")
        missing = self.run_in(directory, "import", path)
        self.assertEqual(missing.exit_code, 1)
        self.assertIn("error: no server runs on", missing.stderr)
        wrong = CliRunner().invoke(cli, ["orchestrator", "import", "-", "--state-dir", directory], input="{}")
        self.assertIn("not a fixture: format: must be 'harn-fixture/1', got nothing", wrong.stderr)


class DrawingTests(SynchronousTestCase):
    def draw(self, rows: object, width: int) -> str:
        out = StringIO()
        print_rows(rows, Console(file=out, width=width, force_terminal=False))  # type: ignore[arg-type]
        return out.getvalue()

    def test_equal_tracebacks(self) -> None:
        """A traceback is shown once; an attempt with the same names the first, and one with another is shown."""
        attempts = [
            AttemptInfo(
                number=number,
                binding="gh@v1",
                started_at="2027-01-15T08:00:00.000Z",
                ended_at="2027-01-15T08:00:01.000Z",
                outcome="failed",
                error_class="handler_error",
                error="no",
                traceback=traceback,
                log=(f"line {number}",),
            )
            for number, traceback in (
                (1, "File a\n  a"),
                (2, "File a\n  a"),
                (3, "File b"),
                (4, "File a\n  a"),
                (5, None),
            )
        ]
        fields = {**structs.asdict(info()), "attempts": tuple(attempts)}
        lines = [text for text, _ in describe(DeliveryDetail(**fields, timeline=(), result=None, event={}))]
        said = [line for line in lines[lines.index("Traceback of attempt 1:") :] if line]
        self.assertEqual(
            said[: said.index("Event:")],
            [
                *("Traceback of attempt 1:", "  File a", "    a", "Last lines of attempt 1:", "  line 1"),
                *("Traceback of attempt 2: as in attempt 1", "Last lines of attempt 2:", "  line 2"),
                *("Traceback of attempt 3:", "  File b", "Last lines of attempt 3:", "  line 3"),
                *("Traceback of attempt 4: as in attempt 1", "Last lines of attempt 4:", "  line 4"),
                *("Last lines of attempt 5:", "  line 5"),
            ],
        )

    def test_ids_are_whole(self) -> None:
        """At any width ids and names of triggers are not cut, in lists and in groups."""
        listed = rows_of(DeliveryList(deliveries=(info(),), more=False), NOW)
        group = DeadGroupInfo(
            trigger_id="github-issues",
            reason="retry_exhausted",
            error_class="handler_error",
            count=3,
            first="2027-01-15T08:00:00.000Z",
            last="2027-01-15T08:00:00.000Z",
            example_id=EVENT_ID,
        )
        for rows in (listed, groups_of(DeadLetters(groups=(group,), total=3))):
            for width in (60, 80, 200):
                drawn = self.draw(rows, width)
                self.assertIn(EVENT_ID, drawn)
                self.assertIn("github-issues", drawn)

    def test_what_an_operator_needs(self) -> None:
        """At 80 columns age, attempts and error of each delivery are there, whatever the terminal has room for."""
        listed = rows_of(DeliveryList(deliveries=(info(), info("trigger_evt_2", "ready")), more=False), NOW + 600)
        for width in (40, 60, 80, 100, 120, 200):
            drawn = " ".join(self.draw(listed, width).split())
            self.assertEqual((drawn.count("10m"), drawn.count("retry_exhausted: ValueError: no")), (2, 1), drawn)
            self.assertRegex(drawn, r"Tries: 3|Tries Age" if width < 200 else " 3 ")

    def test_age(self) -> None:
        """An age has one unit."""
        for seconds, text in ((0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (90_000, "1d"), (-5, "0s")):
            self.assertEqual(age("2027-01-15T08:00:00.000Z", NOW + seconds), text)


class Paged:
    """A source that ends each page early, as a server does when its time for a list has ended."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, str | None]] = []

    def page(self, wanted: ListDeliveries) -> DeliveryList:
        self.wanted.append((wanted.limit, wanted.before))
        number = len(self.wanted)
        found = (info(f"e{number}"),) if number != 2 else ()
        return DeliveryList(deliveries=found, more=True, before=100 - number)


class FollowingTests(SynchronousTestCase):
    def test_until_the_limit(self) -> None:
        """The command continues where a page ended, until it has as many as were asked for."""
        source = Paged()
        found = read_list(source, ListDeliveries(), 3)  # type: ignore[arg-type]
        self.assertEqual([each.event_id for each in found.deliveries], ["e1", "e3", "e4"])
        self.assertEqual(source.wanted, [(3, None), (2, "99"), (2, "98"), (1, "97")])
        self.assertTrue(found.more)
