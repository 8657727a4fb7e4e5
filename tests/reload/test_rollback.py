"""Rolling back: an earlier generation's content as a new, higher generation, out of the store and not from disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from zope.interface import implementer

from harn.errors import EventLogUnavailable, GenerationUnknown
from harn.reload.archive import pack_manifest, unpack_manifest
from harn.reload.build import Builder
from harn.reload.generation import Candidate
from harn.reload.interfaces import IDecision, IOtherServers
from harn.reload.report import PREVIOUS, ReloadRequest
from harn.reload.results import ServerAdoption
from harn.store.retention import RetentionPolicy
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake, present


@implementer(IDecision)
class Alone(Struct, frozen=True):
    """The decision about a generation that one server adopts alone."""

    follows: int | None = None
    splits: bool = True
    reunites: bool = False

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""

    async def outcome(self) -> Sequence[ServerAdoption]:
        """See `IDecision.outcome`."""
        return ()

    def end(self) -> None:
        """See `IDecision.end`."""


@implementer(IOtherServers)
class Beside(Struct, frozen=True):
    """Others serve on the store; a reload with ``--here`` is this server's alone."""

    async def serving(self) -> Sequence[str]:
        """See `IOtherServers.serving`."""
        return ()

    async def settled(self) -> None:
        """See `IOtherServers.settled`."""

    async def begin(self, request: ReloadRequest) -> IDecision | None:
        """See `IOtherServers.begin`."""
        return Alone() if request.here else None


TOKEN = 'secrets = { token = "fake/token" }'


class RollbackTests(CoordinatorCase):
    def edit(self, number: int) -> None:
        """Change the code, the manifest's settings and a trigger, and reload."""
        self.world.write("handlers.py", f"{HANDLERS}# {number}\n")
        self.world.manifest(fake("a", extra=f"timeout = '{number}s'"), fake("b"))
        self.reloaded()

    def code_of(self, trigger_id: str) -> bytes:
        """Return the source that a trigger's live version runs."""
        return self.world.code_of(self.world.version(trigger_id))

    def test_previous(self) -> None:
        """The previous generation is adopted again, manifest and code, under a number and versions that are new."""
        self.edit(2)
        report = self.reloaded(recall=PREVIOUS, source="rollback")
        self.assertEqual((report.generation, report.recalled, self.world.live()), (3, 1, {"a": 3, "b": 3}))
        self.assertEqual(report.modified, ("a", "b"))
        self.assertEqual(self.code_of("a"), HANDLERS.encode())
        self.assertEqual(self.world.version("a").spec.timeout, 30.0)

    def test_tells_of_drift(self) -> None:
        """The report and the description say that the files say something else, and name them."""
        self.edit(2)
        report = self.reloaded(recall=1)
        root = self.world.root.absolute()
        self.assertEqual(report.drifted_files, (str(root / "handlers.py"), str(root / "harn.toml")))
        self.assertEqual((report.to_result().drift, report.warnings), (True, ()))
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described.drift, described.recalled), (True, 1))
        self.assertEqual(described.drifted_files, report.drifted_files)

    def test_pinned(self) -> None:
        """After a rollback the description says that the files are not adopted, until they change."""
        self.edit(2)
        self.assertIs(self.successResultOf(self.world.coordinator.describe()).pinned, False)
        self.reloaded(recall=1)
        self.assertIs(self.successResultOf(self.world.coordinator.describe()).pinned, True)
        self.world.write("handlers.py", HANDLERS + "# mended\n")
        self.assertIs(self.successResultOf(self.world.coordinator.describe()).pinned, False)

    def test_pinned_by_a_file_that_is_gone(self) -> None:
        """The generation that was rolled back may have had more files than the live one; they belong to the pin."""
        self.world.write("more.py", HANDLERS)
        self.world.manifest(fake("a", handler="more:on_event"))
        self.reloaded()
        self.reloaded(recall=1)
        self.assertIs(self.successResultOf(self.world.coordinator.describe()).pinned, True)
        self.world.write("more.py", HANDLERS + "# mended\n")
        self.assertIs(self.successResultOf(self.world.coordinator.describe()).pinned, False)

    def test_a_reload_that_is_asked_for_ends_the_pin(self) -> None:
        """Also where it finds what is live: from then on nothing keeps files away that were bad once."""
        self.edit(2)
        self.reloaded(recall=1)
        self.world.write("handlers.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"))
        self.assertEqual(self.reloaded().generation, 3)
        self.assertIsNone(self.world.serving.pin)
        self.assertIsNone(self.successResultOf(self.world.store.checkpoints.get("replaced")))
        self.world.write("handlers.py", f"{HANDLERS}# 2\n")
        self.world.manifest(fake("a", extra="timeout = '2s'"), fake("b"))
        self.world = self.world.restarted()
        self.assertEqual(self.successResultOf(self.world.start()).generation, 4)
        self.assertEqual(self.world.version("a").spec.timeout, 2.0)

    def test_a_reload_of_one_server_leaves_the_pin_of_all(self) -> None:
        """Whether it finds what is live or adopts the files: the others still serve what was rolled back."""
        self.edit(2)
        self.reloaded(recall=1)
        pin = self.successResultOf(self.world.store.checkpoints.get("replaced"))
        self.world.coordinator.others = Beside()
        self.world.write("handlers.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"))
        self.assertEqual(self.reloaded(here=True).generation, 3)
        self.assertIsNotNone(self.world.serving.pin)
        self.world.write("handlers.py", f"{HANDLERS}# 3\n")
        self.assertEqual(self.reloaded(here=True).generation, 4)
        self.assertIsNotNone(pin)
        self.assertEqual(self.successResultOf(self.world.store.checkpoints.get("replaced")), pin)

    def test_the_watcher_does_not_end_the_pin(self) -> None:
        """A reload by the watcher, and a dry run, leave it."""
        self.edit(2)
        self.reloaded(recall=1)
        self.world.write("handlers.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"))
        for more in ({"source": "file_watch"}, {"dry_run": True}):
            self.reloaded(**more)
            self.assertIsNotNone(self.world.serving.pin, more)

    def test_files_put_back_are_no_drift(self) -> None:
        """Where the files already say what is recalled, there is no drift to tell of."""
        self.edit(2)
        self.world.write("handlers.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"))
        report = self.reloaded(recall=1)
        self.assertEqual((report.generation, report.drifted_files, report.warnings), (3, (), ()))

    def test_back_and_forth(self) -> None:
        """What was rolled back can be named, and comes again; numbers only rise."""
        self.edit(2)
        self.reloaded(recall=PREVIOUS)
        report = self.reloaded(recall=2)
        self.assertEqual((report.generation, report.recalled, self.world.live()), (4, 2, {"a": 4, "b": 4}))
        self.assertEqual(self.world.version("a").spec.timeout, 2.0)

    def test_undone(self) -> None:
        """A second rollback without a number undoes the first, over a restart too."""
        for number in (2, 3):
            self.edit(number)
        self.assertEqual(self.reloaded(recall=PREVIOUS).recalled, 2)
        self.world = self.world.restarted()
        self.assertEqual(self.successResultOf(self.world.start()).recalled, 2)
        self.assertEqual(self.reloaded(recall=PREVIOUS).recalled, 3)

    def test_after_a_revert(self) -> None:
        """What was undone by itself is not brought back by a rollback without a number."""
        self.edit(2)
        self.world.manifest(fake("a", extra="timeout = '3s'"), fake("b"))
        self.reloaded(confirm_within=60.0)
        self.world.clock.advance(61.0)
        self.assertEqual((self.world.coordinator.generation, self.world.version("a").spec.timeout), (4, 2.0))
        self.world = self.world.restarted()
        self.successResultOf(self.world.start())
        self.assertEqual(self.reloaded(recall=PREVIOUS).recalled, 1)

    def test_far_back(self) -> None:
        """Any generation that is kept can be named; a trigger that it does not have drains, one that it has comes."""
        self.world.manifest(fake("c"))
        self.reloaded()
        self.edit(3)
        report = self.reloaded(recall=2)
        self.assertEqual((report.added, report.removed), (("c",), ("a", "b")))
        self.assertEqual(self.world.live(), {"c": 2})

    def test_no_files_are_needed(self) -> None:
        """The store has all that it takes: manifest and module may be gone."""
        self.edit(2)
        for name in ("harn.toml", "handlers.py"):
            (self.world.root / name).unlink()
        report = self.reloaded(recall=1)
        self.assertEqual((report.generation, len(report.drifted_files)), (3, 2))

    def test_unknown(self) -> None:
        """A generation that never served, or whose content is gone, is refused; the message says what is kept."""
        self.edit(2)
        error = self.failureResultOf(self.world.reload(recall=99), GenerationUnknown).value
        self.assertIn("kept are: 1, 2", str(error))
        self.assertEqual(self.world.coordinator.generation, 2)
        self.failureResultOf(self.world.reload(recall=99, dry_run=True), GenerationUnknown)
        self.assertEqual(self.world.told.runs[-1], "refused")

    def test_nothing_before(self) -> None:
        """Without an earlier generation of other content there is nothing to go back to; what is kept is said."""
        self.failureResultOf(self.world.reload(recall=PREVIOUS), GenerationUnknown)
        self.reloaded(force=True)
        error = self.failureResultOf(self.world.reload(recall=PREVIOUS), GenerationUnknown).value
        self.assertIn("no generation before 2 with another content is kept; kept are: 1, 2", str(error))

    def test_dry_run(self) -> None:
        """A dry run of a rollback says what it would do and leaves everything as it is."""
        self.edit(2)
        before = self.world.stands()
        report = self.reloaded(recall=1, dry_run=True)
        self.assertEqual((report.generation, report.modified, report.recalled), (2, ("a", "b"), 1))
        self.assertEqual(len(report.drifted_files), 2)
        self.assertEqual(self.world.stands(), before)

    def test_rotated_secrets_are_no_other_content(self) -> None:
        """A rollback goes back to what was another manifest or code: other secrets alone are nothing to go back to."""
        self.world.manifest(fake("a", extra=TOKEN))
        self.reloaded()
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        self.assertEqual(self.reloaded().generation, 3)
        for dry_run in (True, False):
            report = self.reloaded(recall=PREVIOUS, dry_run=dry_run)
            self.assertEqual((report.recalled, report.modified, report.added), (1, ("a",), ("b",)))
        self.assertEqual(report.generation, 4)

    def renew(self) -> Any:
        """Request the reload that the watcher requests when a secret changes after a rollback."""
        coordinator = self.world.coordinator
        return self.reloaded(source="file_watch", recall=coordinator.generation, if_match=coordinator.etag)

    def test_renewed(self) -> None:
        """The recalled generation continues with new secrets; its origin, and the files that it replaced, stay."""
        self.world.manifest(fake("a", extra=TOKEN))
        self.reloaded()
        self.world.manifest(fake("a", extra="timeout = '9s'\n" + TOKEN))
        self.reloaded()
        self.reloaded(recall=PREVIOUS)
        pin = self.world.serving.pin
        self.world.write("harn.toml", "an edit that comes at the same time")
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        report = self.renew()
        self.assertEqual((report.generation, report.recalled, report.modified), (5, 2, ()))
        self.assertEqual(report.renewed, ("secret fake/token",))
        self.assertEqual(self.world.plugin.of("a").context.binding.secrets, {"token": (b"t-2",)})
        self.assertEqual(self.world.version("a").spec.timeout, 30.0)
        self.assertEqual(self.world.serving.pin, pin)
        self.assertEqual(self.renew().generation, 5)
        self.world.manifest(fake("a", extra="timeout = '9s'\n" + TOKEN))
        self.world = self.world.restarted()
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        report = self.successResultOf(self.world.start())
        self.assertEqual((report.generation, report.recalled), (5, 2))
        self.assertEqual(self.reloaded(recall=PREVIOUS).recalled, 3)

    def test_secrets_are_those_of_now(self) -> None:
        """Secrets are never kept: a recalled trigger uses the value of today."""
        self.world.manifest(fake("a", extra=TOKEN))
        self.reloaded()
        self.world.manifest(fake("a", extra="timeout = '9s'\n" + TOKEN))
        self.reloaded()
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        self.reloaded(recall=2)
        self.assertEqual(self.world.plugin.of("a").context.binding.secrets, {"token": (b"t-2",)})

    def test_secret_that_is_gone(self) -> None:
        """What is recalled is checked as any manifest is: a problem names the generation, and nothing changes."""
        self.world.manifest(fake("a", extra=TOKEN))
        self.reloaded()
        self.world.manifest(fake("a"))
        self.reloaded()
        del self.world.environ["HARN_SECRET_FAKE_TOKEN"]
        before = self.world.stands()
        report = self.reload(recall=2)
        self.assertEqual((report.ok, report.stage), (False, "resolve"))
        self.assertIn("of generation 2", report.problems[0].file)
        self.assertEqual(self.world.stands(), before)

    def test_history(self) -> None:
        """The record says who went back to what, and what each generation changed."""
        self.edit(2)
        self.reloaded(recall=1, source="rollback", actor="me", reason="it was bad")
        record = self.successResultOf(self.world.store.generations.history(1))[0]
        self.assertEqual(
            (record.recalled, record.source, record.actor, record.reason), (1, "rollback", "me", "it was bad")
        )
        self.assertEqual(record.summary["counts"], {"added": 0, "modified": 2, "removed": 0, "unchanged": 0})
        self.assertEqual(record.summary["changes"]["a"], ["handler code", "timeout"])

    def test_damaged(self) -> None:
        """Content that is not what was put there is refused, whichever part it is, and nothing changes."""
        self.edit(2)
        store, before = self.world.store, self.world.stands()
        record = present(self.successResultOf(store.generations.generation(1)))
        bundle = present(self.successResultOf(store.generations.bundle(record.bundle_id)))
        manifest = present(self.successResultOf(store.generations.manifest(record.manifest_digest)))
        readable = bundle.replace(b"return 1", b"return 9")
        other = pack_manifest(unpack_manifest(manifest).replace(b"allow_empty = true", b"allow_empty=false"))
        for spoilt in ((readable, manifest), (bundle[:-3], manifest), (bundle, other), (bundle, manifest[:-3])):
            store.query("UPDATE bundles SET data = ? WHERE bundle_id = ?", spoilt[0], record.bundle_id)
            store.query("UPDATE manifests SET data = ? WHERE digest = ?", spoilt[1], record.manifest_digest)
            self.assertNotEqual(spoilt, (bundle, manifest))
            error = self.failureResultOf(self.world.reload(recall=1), GenerationUnknown).value
            self.assertIn("the content of generation 1 is damaged", str(error))
            self.assertEqual(self.world.stands(), before)

    def test_only_so_many_are_kept(self) -> None:
        """What retention took cannot be gone back to; the newest stay."""
        for number in range(2, 6):
            self.edit(number)
        policy = RetentionPolicy(events=1e9, dead=1e9, generations=2)
        while self.successResultOf(self.world.store.trim(policy, self.world.clock.seconds(), 100)):
            pass
        self.failureResultOf(self.world.reload(recall=3), GenerationUnknown)
        self.assertEqual(self.reloaded(recall=4).generation, 6)

    def test_start_from_last_good(self) -> None:
        """With files that are broken the first generation may be the last one that served, and keeps its number."""
        self.edit(2)
        self.world.write("harn.toml", "broken [")
        self.world = self.world.restarted()
        self.assertFalse(self.successResultOf(self.world.start()).ok)
        report = self.successResultOf(self.world.start(recall=PREVIOUS, reason="the files are broken"))
        self.assertEqual((report.ok, report.generation, report.recalled), (True, 2, 2))
        self.assertEqual(self.world.live(), {"a": 2, "b": 2})
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described.drift, present(described.last_failed).stage), (True, "parse"))

    def test_renewed_after_last_good(self) -> None:
        """A secret that is read again does not correct broken files: their failure stays shown until they are fixed."""
        self.world.manifest(fake("a", extra=TOKEN))
        self.reloaded()
        self.world.write("harn.toml", "broken [")
        self.world = self.world.restarted()
        self.assertFalse(self.successResultOf(self.world.start()).ok)
        self.successResultOf(self.world.start(recall=PREVIOUS))
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        report = self.renew()
        self.assertEqual((report.generation, report.renewed, report.renews), (3, ("secret fake/token",), True))
        self.assertEqual(self.world.last_failed.stage, "parse")
        self.world.manifest(fake("a", extra=TOKEN))
        self.assertFalse(self.reloaded().renews)
        self.assertIsNone(self.world.coordinator.last_failed)

    def test_no_last_good(self) -> None:
        """Where nothing has served, there is nothing to start from."""
        self.world = self.world.restarted()
        self.world.store.fail_reads = True
        self.failureResultOf(self.world.start(recall=PREVIOUS), EventLogUnavailable)


class PackingTests(CoordinatorCase):
    def test_damaged(self) -> None:
        """A text comes back as it was; damaged ones are reported, not adopted."""
        text = b"\xff\x00 any bytes" * 1000
        self.assertEqual(unpack_manifest(pack_manifest(text)), text)
        for data in (b"", b"nothing", pack_manifest(text)[:-9]):
            self.assertRaises(ValueError, unpack_manifest, data)


class RestartTests(CoordinatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.world.write("handlers.py", f"{HANDLERS}# bad\n")
        self.reloaded()
        self.reloaded(recall=1)

    def restart(self) -> Any:
        """Start another server on the same state."""
        self.world = self.world.restarted()
        return self.successResultOf(self.world.start())

    def test_goes_on(self) -> None:
        """A restart does not adopt what was rolled back from, as long as the files are as they were then."""
        for _ in range(2):
            report = self.restart()
            self.assertEqual((report.generation, report.recalled, self.world.live()), (3, 1, {"a": 3, "b": 3}))
            self.assertEqual(len(report.drifted_files), 1)
        self.assertEqual(self.reloaded().generation, 4)
        self.assertEqual(self.restart().recalled, None)

    def test_files_changed(self) -> None:
        """Files that have changed since are adopted, by a restart as by the watcher."""
        self.world.write("handlers.py", f"{HANDLERS}# good\n")
        report = self.restart()
        self.assertEqual((report.generation, report.recalled), (4, None))

    def stalled(self, **more: Any) -> None:
        """Reload while the store takes writes, and does not answer."""
        real = self.world.store.generations.reserve

        def reserve(*values: Any) -> Deferred[None]:
            self.successResultOf(real(*values))
            return Deferred()

        self.world.store.generations.reserve = reserve  # type: ignore[assignment]
        reloading = self.world.reload(**more)
        self.world.clock.pump([31.0, 6.0])
        self.assertFalse(self.successResultOf(reloading).ok)
        self.world.store.generations.reserve = real

    def test_a_reservation_that_came_too_late(self) -> None:
        """A reload that ran out of time while its numbers were written has used none: a restart continues."""
        self.stalled(recall=2)
        report = self.restart()
        self.assertEqual((report.generation, report.recalled, self.world.live()), (3, 1, {"a": 3, "b": 3}))

    def test_a_reservation_that_stays(self) -> None:
        """Where a number stays reserved a restart continues with what was rolled back to all the same."""

        async def withdraw(*_: Any) -> None:
            raise EventLogUnavailable("disk full")

        self.patch(Builder, "withdraw", withdraw)
        self.stalled(recall=2)
        report = self.restart()
        self.assertEqual((report.generation, report.recalled), (5, 1))
        self.assertEqual(self.world.code_of(self.world.version("a")), HANDLERS.encode())

    def test_content_lost(self) -> None:
        """Where the generation of the rollback is gone, the files are adopted."""
        self.world.store.query("DELETE FROM bundles")
        report = self.restart()
        self.assertEqual((report.ok, report.generation, report.recalled), (True, 4, None))
