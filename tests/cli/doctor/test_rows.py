"""What each check says of plain values, and that a finding says what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import structs
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.backup.backups import Problem as StoreProblem
from harn.backup.backups import StoreReport
from harn.cli.doctor import configuration, directory, installation, serving, stored, telemetry, timed
from harn.cli.doctor.model import CheckStatus, Row, diagnosis, failure, format_age, format_size, ok
from harn.cli.doctor.subject import Serving, Subject
from harn.cli.place import ServerLocation
from harn.clocks import rfc3339
from harn.listener.endpoint import Bind
from harn.listener.published_operations import PublishedInfo, PublishedList
from harn.manifest.model import ReferenceSite, TriggerSpec
from harn.model.problem import Problem
from harn.options import ServeOptions
from harn.orchestrator.operations import TriggerInfo
from harn.schedules.cursor_operations import PollInfo
from harn.schedules.operations import FiringInfo, ScheduleList

OK, WARN, FAIL, SKIP = CheckStatus.OK, CheckStatus.WARN, CheckStatus.FAIL, CheckStatus.SKIP
NOW = 1_800_000_000.0
EXAMPLE = Path(harn.__file__).parents[1] / "examples" / "systemd" / "harn.service"


def statuses(rows: Iterable[Row]) -> list[CheckStatus]:
    """Return the status of each row."""
    return [row.status for row in rows]


class ModelTests(SynchronousTestCase):
    """Rows, and the document of ``--json``."""

    def test_advice(self) -> None:
        """A finding that is not in order must say what to do."""
        for status in (WARN, FAIL):
            self.assertRaises(ValueError, Row, status, "lock", "is odd")

    def test_diagnosis(self) -> None:
        """The status is that of the worst row, and each status is counted."""
        found = diagnosis([ok("a", "b"), failure("c", "d", "e")])
        self.assertEqual((found.status, found.counts), ("fail", {"OK": 1, "WARN": 0, "FAIL": 1, "SKIP": 0}))
        self.assertEqual((found.checks[1].label, found.checks[1].hint), ("c", "e"))
        self.assertEqual(diagnosis([ok("a", "b")]).status, "ok")

    def test_units(self) -> None:
        """Sizes and ages are written in a unit that suits them."""
        self.assertEqual([format_size(size) for size in (12, 1536, 3 * 1024**3)], ["12 bytes", "1.5 KiB", "3.0 GiB"])
        self.assertEqual([format_age(age) for age in (12, 600, 3 * 86400)], ["12 s", "10 min", "3 d"])


class TelemetryTests(SynchronousTestCase):
    """Extras, and what is sent to a collector."""

    def test_extras(self) -> None:
        """An extra that is asked for and missing says what asks for it, and how it is installed."""
        here = telemetry.NeededExtra(name="postgres", why="the store", is_installed=True)
        vital = replace(here, name="keyring", is_installed=False)
        other = replace(here, name="otel", why="OTEL_X asks for traces", is_installed=False, is_vital=False)
        self.assertEqual(statuses(telemetry.rows_of_extras(())), [SKIP])
        self.assertEqual(statuses(telemetry.rows_of_extras([here])), [OK])
        first, second, third = telemetry.rows_of_extras([here, vital, other])
        self.assertEqual([first.status, second.status, third.status], [FAIL, WARN, OK])
        self.assertIn("pip install 'harn[keyring]'", first.hint)
        self.assertIn("OTEL_X asks for traces", second.detail)
        self.assertIn("OTEL_SDK_DISABLED=true", second.hint)

    def test_needed_extras(self) -> None:
        """The environment, and the note of a store elsewhere, say which extras are needed."""
        asked = {"HARN_SECRET_PROVIDERS": "env, keyring", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
        self.assertEqual(self.needed(asked), ["keyring", "otel"])
        self.assertEqual(self.needed({"HARN_ORCHESTRATOR_STORE": "postgresql://h/d"}), ["postgres"])
        self.assertEqual(self.needed({**asked, "OTEL_SDK_DISABLED": "true"}), ["keyring"])
        self.assertEqual(self.needed({}), [])

    def needed(self, environ: Mapping[str, str]) -> list[str]:
        """Return the extras that are needed in an environment."""
        return [each.name for each in telemetry.needed_extras(self.subject(environ))]

    def subject(self, environ: Mapping[str, str]) -> Subject:
        """Return an empty folder with an environment."""
        options = ServeOptions.from_values({"state_dir": os.path.abspath(self.mktemp())}, {})
        location = ServerLocation.of_options(None, options.state_dir, {})
        return Subject(options=options, location=location, environ=environ, network=False, now=NOW)

    def test_traces(self) -> None:
        """Malformed variables are warnings, and a collector that takes no connections is one; without both, skipped."""
        self.assertEqual(statuses(telemetry.check_traces(self.subject({}))), [SKIP])
        wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:p@collector:4318", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}
        first, second = telemetry.check_traces(self.subject(wrong))
        self.assertEqual([first.status, second.status], [WARN, SKIP])
        self.assertIn("must be seconds, got 'soon'", first.detail)
        self.assertNotIn("u:p", second.detail)
        found = [telemetry.row_of_collector("http://collector:4318", error) for error in ("", "refused")]
        self.assertEqual(statuses(found), [OK, WARN])


class TimedTests(SynchronousTestCase):
    """Schedules, polls, and what senders publish."""

    def schedule(self, *polls: PollInfo, late: float = -60.0, missed: int = 0) -> ScheduleList:
        """Return the answer of a server with one schedule, that is late by so many seconds."""
        firing = FiringInfo(
            trigger_id="night",
            at=rfc3339(NOW - late),
            local_at="",
            tick_at="",
            schedule="0 3 * * *",
            timezone="UTC",
            missed=missed,
        )
        return ScheduleList(firings=(firing,), more=False, polls=polls)

    def rows(self, found: ScheduleList, *, is_running: bool = True) -> list[Row]:
        """Return the findings."""
        return list(timed.rows_of_schedules(found, NOW, is_running=is_running))

    def test_schedules(self) -> None:
        """What fires next is named; what is overdue or was missed is a warning; without a server nothing is overdue."""
        self.assertEqual(statuses(self.rows(ScheduleList(firings=(), more=False))), [SKIP])
        [fine] = self.rows(self.schedule())
        self.assertEqual((fine.status, "night" in fine.detail), (OK, True))
        [_, late] = self.rows(self.schedule(late=5 * 3600.0))
        self.assertEqual((late.status, "5 h ago" in late.detail), (WARN, True))
        self.assertEqual(statuses(self.rows(self.schedule(late=3600.0), is_running=False)), [OK])
        [_, missed] = self.rows(self.schedule(missed=2))
        self.assertEqual((missed.status, "catchup_mode" in missed.hint), (WARN, True))

    def test_failing_poll(self) -> None:
        """A poll whose last call failed is a warning with its error, and names the command for its cursor."""
        poll = PollInfo(trigger_id="orders", cursor=7, failures=3, last_error="handler_error: KeyError: 'id'")
        self.assertEqual(statuses(self.rows(self.schedule(PollInfo(trigger_id="fine", cursor=1)))), [OK])
        [_, failing] = self.rows(self.schedule(poll))
        self.assertEqual((failing.status, failing.label), (WARN, "poll:orders"))
        self.assertIn("KeyError: 'id'", failing.detail)
        self.assertIn("harn orchestrator cursor orders", failing.hint)

    def test_published(self) -> None:
        """A document that was never fetched, is old, or failed last is a warning; a fresh one is in order."""
        for document, status, said in (
            ({"age_seconds": 60.0}, OK, "fetched 60 s ago"),
            ({}, WARN, "answered 503; the first fetch has not ended"),
            (
                {"error": "it answered 500"},
                WARN,
                "never fetched, so that requests are answered 503; the last fetch failed",
            ),
            (
                {"age_seconds": 60.0, "error": "it answered 500"},
                WARN,
                "and in use; the last fetch failed: it answered 500",
            ),
            ({"age_seconds": 5 * 3600.0}, WARN, "fetched 5 h ago"),
        ):
            row = timed.row_of_document(PublishedInfo(name="github", url="https://api.github.com/meta", **document))
            self.assertEqual((row.status, row.label), (status, "published:github"))
            self.assertIn(said, row.detail)
        self.assertEqual(statuses(timed.rows_of_published(PublishedList(documents=()))), [SKIP])

    def test_failing_and_late(self) -> None:
        """A poll that fails waits longer than its schedule says, which is not said a second time."""
        failing = PollInfo(trigger_id="night", cursor=1, failures=9, last_error="handler_error: KeyError")
        self.assertEqual(
            [row.label for row in self.rows(self.schedule(failing, late=600.0))], ["schedules", "poll:night"]
        )


class DirectoryTests(SynchronousTestCase):
    """State directory, lock, disk, fsync, files."""

    def facts(self, **changed: object) -> list[Row]:
        """Return the facts of a directory."""
        values = {"path": "/s", "mode": 0o700, "user": "harn", "owner": "harn", **changed}
        return list(directory.rows_of_directory(directory.DirectoryFacts(**values)))  # type: ignore[arg-type]

    def test_directory(self) -> None:
        """Missing, a file, another user's, open to others: each has its own status and advice."""
        self.assertEqual(statuses(self.facts()), [OK])
        self.assertEqual(statuses(self.facts(mode=None)), [WARN])
        self.assertEqual(statuses(self.facts(mode=None, is_usable=False)), [FAIL])
        self.assertEqual(statuses(self.facts(is_directory=False)), [FAIL])
        self.assertEqual(statuses(self.facts(is_usable=False, owner="root")), [FAIL])
        self.assertEqual(statuses(self.facts(is_usable=False, owner="root", is_held=True)), [WARN])
        [open_one] = self.facts(mode=0o755)
        self.assertEqual((open_one.status, "chmod 700 /s" in open_one.hint), (WARN, True))
        self.assertIn("all users can enter", open_one.detail)
        self.assertIn("users of its group", self.facts(mode=0o750)[0].detail)
        self.assertEqual(statuses(self.facts(open_files=["/s/token", "/s/lock"])), [OK, WARN])

    def test_lock(self) -> None:
        """Free, free after a crash, held by the server of the state file, held by another."""
        running = {"status": "running", "pid": 7, "harn_version": "1", "generation": 3, "started_at": "then"}
        self.assertEqual(directory.row_of_lock(None, None).status, OK)
        self.assertEqual(directory.row_of_lock(None, {"status": "stopped", "stopped_at": "then"}).status, OK)
        self.assertEqual(directory.row_of_lock(None, running).status, WARN)
        held = directory.row_of_lock(7, running)
        self.assertEqual((held.status, "pid 7" in held.detail), (OK, True))
        self.assertEqual(directory.row_of_lock(6, running, 6).status, OK)
        for pid, state in ((8, running), (7, None), (0, None)):
            self.assertEqual(directory.row_of_lock(pid, state).status, WARN)

    def test_disk(self) -> None:
        """Little room is a warning; next to none, or no file more, is a failure."""
        size = 100 * 1024**3
        found = [
            directory.row_of_disk(free, size, inodes).status
            for free, inodes in ((size // 2, None), (size // 2, 10), (size // 2, 0), (10**9, None), (1, None))
        ]
        self.assertEqual(found, [OK, WARN, FAIL, WARN, FAIL])

    def test_syncs(self) -> None:
        """The median decides, so that one slow sync does not count."""
        found = [directory.row_of_syncs(times).status for times in ([0.001, 0.9, 0.002], [0.1], [2.0])]
        self.assertEqual(found, [OK, WARN, FAIL])

    def test_files(self) -> None:
        """A low limit is a warning."""
        self.assertEqual([directory.row_of_files(limit, "").status for limit in (256, 65536)], [WARN, OK])


class StoredTests(SynchronousTestCase):
    """Event log, clock, dispatcher."""

    def report(self, *problems: StoreProblem, shrinks: bool = True) -> StoreReport:
        """Return the result of a check of a store."""
        return StoreReport(
            status="ok",
            file="/s/events.sqlite",
            bytes=4096,
            free_bytes=0,
            shrinks=shrinks,
            schema=4,
            deliveries={"done": 2},
            problems=problems,
        )

    def test_event_log(self) -> None:
        """Each problem is a failure with its own advice; a large write-ahead log is a warning."""
        [sound] = stored.rows_of_event_log(self.report(), 0)
        self.assertEqual((sound.status, "2 done" in sound.detail), (OK, True))
        [broken] = stored.rows_of_event_log(self.report(StoreProblem(what="page 3", hint="restore")), 0)
        self.assertEqual((broken.status, broken.detail, broken.hint), (FAIL, "page 3", "restore"))
        self.assertEqual(statuses(stored.rows_of_event_log(self.report(), 2 * 1024**3)), [WARN])
        self.assertEqual(statuses(stored.rows_of_event_log(self.report(shrinks=False), 0)), [WARN])

    def test_look_at_event_log(self) -> None:
        """A report of a look counts nothing, and names the option that reads everything."""
        [looked] = stored.rows_of_event_log(structs.replace(self.report(), whole=False, deliveries={}), 0)
        self.assertEqual((looked.status, "doctor --deep" in looked.detail), (OK, True))
        self.assertNotIn("deliveries", looked.detail)

    def test_clock(self) -> None:
        """A clock that was set back by more than signatures allow is a failure; by seconds, a warning."""
        found = [
            stored.row_of_clock(NOW, {"the newest delivery": NOW + ahead}, None).status for ahead in (-60, 3, 60, 301)
        ]
        self.assertEqual(found, [OK, OK, WARN, FAIL])
        self.assertEqual(stored.row_of_clock(0.0, {}, None).status, FAIL)
        self.assertEqual(stored.row_of_clock(NOW, {}, False).status, WARN)

    def test_dispatcher(self) -> None:
        """Dead letters are a warning that says where they are listed."""
        self.assertEqual(stored.row_of_dispatcher(1, 2, 3, 0).detail, "in_flight=1 queued=2 retry_depth=3 dlq_depth=0")
        dead = stored.row_of_dispatcher(0, 0, 0, 4)
        self.assertEqual((dead.status, "dlq" in dead.hint), (WARN, True))


class ConfigurationTests(SynchronousTestCase):
    """Manifest, code, secrets, credentials, plugins."""

    def test_problems(self) -> None:
        """Each problem of a manifest is a failure with its line and its hint."""
        problem = Problem(file="harn.toml", line=3, where="triggers[0] (gh): id", message="is empty", hint="give one")
        [row] = configuration.rows_of_problems("manifest", [problem])
        self.assertEqual(row, failure("manifest", "harn.toml:3: triggers[0] (gh): id: is empty", "give one"))

    def test_code(self) -> None:
        """The document of ``check`` is read back as rows."""
        self.assertEqual(statuses(configuration.rows_of_code({"problems": [], "modules": 1})), [OK])
        wrong = {"problems": [{"file": "h.py", "line": 1, "message": "SyntaxError", "code": "h.py:1"}], "modules": 1}
        self.assertEqual(statuses(configuration.rows_of_code(wrong)), [FAIL])

    def test_secrets(self) -> None:
        """A provider counts its references; a reference that none has is a failure that says where it is used."""
        site = ReferenceSite("gh", "secrets.signing_secret")
        found = [
            configuration.ResolvedReference(reference="github/a", provider="env"),
            configuration.ResolvedReference(reference="github/b", sites=[site], problem="secret github/b is not set"),
        ]
        rows = {row.label: row for row in configuration.rows_of_secrets(["env", "file"], found, is_certain=True)}
        self.assertEqual(rows["secret:env"].detail, "1 of 2 references")
        self.assertEqual(rows["secret:file"].detail, "0 of 2 references")
        self.assertEqual(rows["secret:keyring"].status, SKIP)
        self.assertEqual(rows["secret:github/b"].status, FAIL)
        self.assertIn("gh: secrets.signing_secret", rows["secret:github/b"].detail)
        unsure = list(configuration.rows_of_secrets(["env"], found, is_certain=False))
        self.assertEqual(unsure[-1].status, WARN)
        demo = list(configuration.rows_of_secrets(["env"], found, is_certain=True, has_demo=True))
        self.assertEqual((demo[-1].status, "harn dev has a demo value" in demo[-1].hint), (WARN, True))

    def test_credentials(self) -> None:
        """None are in order, since there is the token; what was trimmed is a warning."""
        self.assertEqual(configuration.row_of_credentials(0, False, ()).status, OK)
        self.assertIn("2 API keys and a secret", configuration.row_of_credentials(2, True, ()).detail)
        self.assertEqual(configuration.row_of_credentials(1, False, ["a line end"]).status, WARN)

    def test_plugins(self) -> None:
        """A broken plugin is a failure that names its module, beside those that can be used."""
        broken = Problem(file="harn.plugins.bad", message="cannot be imported", hint="uninstall it")
        rows = list(configuration.rows_of_plugins("connectors", ["github"], [broken]))
        self.assertEqual(statuses(rows), [FAIL, OK])
        self.assertIn("harn.plugins.bad", rows[0].detail)
        self.assertEqual(statuses(configuration.rows_of_plugins("connectors", [], [])), [FAIL])


class ServingTests(SynchronousTestCase):
    """Server, triggers, address, certificate, destinations."""

    def test_server(self) -> None:
        """Without an answer and while it is not ready it fails; where it refuses this command it is a warning."""
        found = [
            serving.row_of_server(Serving(url="http://h", readiness=readiness, problem=problem)).status
            for readiness, problem in (((200, "ready"), ""), ((503, "starting"), ""), (None, ""), ((200, ""), "401"))
        ]
        self.assertEqual(found, [OK, FAIL, FAIL, WARN])

    def test_triggers(self) -> None:
        """A row for each trigger: its kind, provider, handler kind, state, version and counts."""
        spec = TriggerSpec(id="gh", kind="webhook", provider="github", path="/gh", handler="h:f")
        info = TriggerInfo(id="gh", provider="github", kind="webhook", version=2, state="active", received=5, failed=1)
        [row] = serving.rows_of_triggers({"gh": spec}, {"gh": info}, is_running=True)
        self.assertEqual((row.status, row.label), (OK, "trigger:gh"))
        for part in ("kind=webhook", "provider=github", "handler=local", "state=active", "version=2", "received=5"):
            self.assertIn(part, row.detail)
        self.assertEqual(statuses(serving.rows_of_triggers({"gh": spec}, {}, is_running=True)), [WARN])
        self.assertEqual(statuses(serving.rows_of_triggers({"gh": spec}, {}, is_running=False)), [OK])
        other = TriggerSpec(id="x", kind="webhook", provider="github", path="/x", handler="h:f")
        rows = list(serving.rows_of_triggers({"x": other}, {"gh": info}, is_running=True))
        self.assertEqual([(row.label, row.status) for row in rows], [("trigger:x", WARN), ("trigger:gh", WARN)])

    def test_troubled_triggers(self) -> None:
        """Dead letters, a pause and an open circuit are warnings with the command that ends them."""
        for change, command in (({"dead": 1}, "dlq"), ({"paused": True}, "resume"), ({"circuit": "open"}, "circuits")):
            row = serving.row_of_trigger("", TriggerInfo(id="gh", **change))
            self.assertEqual((row.status, command in row.hint), (WARN, True), change)

    def test_address(self) -> None:
        """An address that cannot be had is a failure, each with its own advice."""
        codes = (None, errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
        rows = [serving.row_of_address(Bind("127.0.0.1", 80), code) for code in codes]
        self.assertEqual(statuses(rows), [OK, FAIL, FAIL, FAIL])
        self.assertEqual(len({row.hint for row in rows}), 4)

    def test_certificate(self) -> None:
        """One that has ended is a failure, one that ends soon a warning."""
        found = [serving.row_of_certificate("c", NOW + days * 86400, NOW).status for days in (-1, 5, 90)]
        self.assertEqual(found, [FAIL, WARN, OK])

    def test_destinations(self) -> None:
        """Only handlers on other machines have an address."""
        found = [
            serving.address_of(TriggerSpec(id="a", kind="webhook", provider="github", path="/a", handler=handler))
            for handler in ("h:f", "a2a://agents.example/x", "a2a://agents.example:8443", "worker://queue")
        ]
        self.assertEqual(found, [None, ("a2a", "agents.example", 443), ("a2a", "agents.example", 8443), None])
        self.assertEqual(serving.row_of_target("d", "refused").status, WARN)


class InstallationTests(SynchronousTestCase):
    """Versions, the cache of plugins, units."""

    def test_versions(self) -> None:
        """An old Python or SQLite is a failure; a server of another version a warning."""
        found = {"harn": "1", "Python": "3.11.2", "Twisted": "24", "SQLite": "3.40.1"}
        self.assertEqual(installation.row_of_versions(found, "1").status, OK)
        self.assertEqual(installation.row_of_versions(found, "0.9").status, WARN)
        self.assertEqual(installation.row_of_versions({**found, "Python": "3.9.1"}, None).status, FAIL)
        self.assertEqual(installation.row_of_versions({**found, "SQLite": "3.8.0"}, None).status, FAIL)

    def test_cache(self) -> None:
        """A cache that has other plugins of a module is stale; one that lacks a module only costs time."""
        one, two = frozenset(("a",)), frozenset(("a", "b"))
        current, stale, lacking = (
            [installation.CachedModule("m", present, cached)]
            for present, cached in ((one, one), (two, one), (one, None))
        )
        self.assertEqual(statuses(installation.rows_of_caches({"a": None, "b": current})), [OK])
        self.assertEqual(statuses(installation.rows_of_caches({"a": stale, "b": current, "c": lacking})), [FAIL, WARN])

    def test_unit(self) -> None:
        """The unit of the examples is in order; a plain one lacks what makes starts, ends and limits right."""
        with open(EXAMPLE, encoding="utf-8") as file:
            self.assertEqual(statuses(installation.rows_of_unit("/etc/harn.service", file.read())), [OK])
        [plain] = installation.rows_of_unit("/etc/h.service", "[Service]\nType=simple\nExecStart=harn serve\n")
        self.assertEqual(plain.status, WARN)
        for wanted in ("Type=notify", "Restart=on-failure", "KillMode=mixed", "LimitNOFILE=65536"):
            self.assertIn(wanted, plain.hint)
        for command in ("/v/bin/harn orchestrator serve", "python3 -m harn serve", "twistd -n harn-orchestrator"):
            self.assertTrue(installation.RUNS_HARN.search(command), command)
        self.assertFalse(installation.RUNS_HARN.search("/usr/bin/nginx"))
