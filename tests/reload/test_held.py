"""Half a file: a reload by the watcher that would remove most triggers waits for an explicit one."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from harn.reload.report import NEEDS_CONFIRMATION, UNSETTLED, ReloadReport
from tests.reload.case import CoordinatorCase
from tests.reload.world import fake, present


class HeldTests(CoordinatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.world.manifest(*map(fake, "abcde"))
        self.reloaded()

    def watch(self) -> ReloadReport:
        """Reload as the watcher does."""
        return self.reload(source="file_watch", actor="watch")

    def test_held(self) -> None:
        """Most triggers gone: nothing changes, and the report names them and says what to do."""
        self.world.manifest(fake("a"), fake("f"))
        before = self.world.stands()
        report = self.watch()
        self.assertEqual((report.status, report.ok, report.generation), (NEEDS_CONFIRMATION, False, 2))
        self.assertEqual(report.removed, ("b", "c", "d", "e"))
        self.assertIn("4 of 5 triggers (b, c, d, e)", present(report.error))
        self.assertIn("reload explicitly", present(report.error))
        self.assertEqual(report.to_result().removed, ("b", "c", "d", "e"))
        self.assertEqual(self.world.stands(), before)
        self.assertEqual(self.world.told.finished[-1].report.status, NEEDS_CONFIRMATION)
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((present(described.waiting).status, described.last_failed), (NEEDS_CONFIRMATION, None))

    def test_confirmed(self) -> None:
        """An explicit reload adopts it, and nothing waits any more."""
        self.world.manifest(fake("a"))
        self.watch()
        report = self.reloaded()
        self.assertEqual((report.generation, report.removed), (3, ("b", "c", "d", "e")))
        self.assertIsNone(self.world.coordinator.waiting)

    def test_made_whole(self) -> None:
        """A later write that makes the file whole is adopted without anybody's word."""
        self.world.manifest(fake("a"))
        self.watch()
        self.world.manifest(*map(fake, "abcde"), fake("f"))
        report = self.watch()
        self.assertEqual((report.ok, report.added, report.generation), (True, ("f",), 3))
        self.assertIsNone(self.world.coordinator.waiting)

    def test_put_back(self) -> None:
        """So is a file that says again what is live: that is a success."""
        self.world.manifest(fake("a"))
        self.watch()
        self.world.manifest(*map(fake, "abcde"))
        self.assertEqual((self.watch().ok, self.world.coordinator.waiting), (True, None))

    def test_plan(self) -> None:
        """A dry run is never held; it says what it would do."""
        self.world.manifest(fake("a"))
        report = self.reload(dry_run=True, source="file_watch")
        self.assertEqual((report.ok, report.removed), (True, ("b", "c", "d", "e")))

    def test_unsettled(self) -> None:
        """Files that do not settle are reported, and nothing changes; the next success ends that."""
        before = self.world.stands()
        told = self.world.coordinator.unsettled("file_watch", "watch", "harn.toml is empty")
        self.successResultOf(Deferred.fromCoroutine(told))
        self.assertEqual(self.world.stands(), before)
        self.assertEqual((self.world.last.status, self.world.last.error), (UNSETTLED, "harn.toml is empty"))
        self.assertEqual(self.world.told.finished[-1].report.status, UNSETTLED)
        self.assertEqual(self.world.told.runs[-2:], ["began", UNSETTLED])
        self.assertTrue(self.watch().ok)
        self.assertIsNone(self.world.coordinator.waiting)

    def test_unsettled_in_its_turn(self) -> None:
        """That is reported when the previous reload has ended; by a server that ends, not at all."""
        before = list(self.world.told.runs)
        turn = self.world.coordinator.queue.exclusive()
        self.successResultOf(Deferred.fromCoroutine(turn.__aenter__()))
        telling = Deferred.fromCoroutine(self.world.coordinator.unsettled("file_watch", "watch", "harn.toml is empty"))
        self.assertEqual(self.world.told.runs, before)
        self.successResultOf(Deferred.fromCoroutine(turn.__aexit__(None, None, None)))
        self.successResultOf(telling)
        self.assertEqual(self.world.told.runs, [*before, "began", UNSETTLED])
        self.world.coordinator.close()
        told = self.world.coordinator.unsettled("file_watch", "watch", "harn.toml is empty")
        self.successResultOf(Deferred.fromCoroutine(told))
        self.assertEqual(self.world.told.runs, [*before, "began", UNSETTLED])

    def test_written_while_it_is_read(self) -> None:
        """Files that read otherwise than whoever asks has seen them at rest are not adopted."""
        seen = self.successResultOf(Deferred.fromCoroutine(self.world.builder.files_now(self.world.serving.inputs)))
        self.world.manifest(*map(fake, "abcdef"))
        before = self.world.stands()
        report = self.reload(source="file_watch", expected=seen)
        self.assertEqual((report.status, report.generation), (UNSETTLED, 2))
        self.assertIn("harn.toml: written while it was read", report.error)
        self.assertEqual(self.world.stands(), before)
        self.assertTrue(self.watch().ok)
