"""Reloads of a manifest in several files: what changed, drift, rollback."""

from __future__ import annotations

from harn.manifest.source import ManifestSource
from harn.reload.archive import unpack_manifest
from harn.reload.report import ERROR, PREVIOUS, ReloadReport
from tests.reload.case import CoordinatorCase
from tests.reload.world import fake, present

HEAD = "include = ['triggers.d/*.toml']\n[orchestrator]\nallow_empty = true\n"


class PartsTests(CoordinatorCase):
    def setUp(self) -> None:
        super().setUp()
        (self.world.root / "triggers.d").mkdir()
        self.part("one", fake("c"))
        self.world.manifest(fake("a"), head=HEAD)
        self.reloaded()

    def part(self, name: str, text: str) -> None:
        self.world.write(f"triggers.d/{name}.toml", text)

    def path(self, name: str) -> str:
        return str(self.world.root.absolute() / name)

    def test_each_file_counts(self) -> None:
        """A changed, a new and a removed file are changes; the triggers of the others keep their versions."""
        before = self.world.live()
        self.assertEqual(before.keys(), {"a", "c"})
        self.part("two", fake("d"))
        self.assertEqual(self.reloaded().added, ("d",))
        self.part("one", fake("c", extra="timeout = '2s'"))
        report = self.reloaded()
        self.assertEqual((report.modified, report.unchanged), (("c",), ("a", "d")))
        (self.world.root / "triggers.d" / "one.toml").unlink()
        self.assertEqual(self.reloaded().removed, ("c",))
        self.assertEqual(self.world.live()["a"], before["a"])

    def test_broken_part(self) -> None:
        """A problem in one file fails the reload, by that file's name and line."""
        self.part("two", "\n[[triggers]]\nid = 3\n")
        report = self.reload_failed()
        self.assertEqual({problem.file for problem in report.problems}, {"triggers.d/two.toml"})
        self.assertIn(3, {problem.line for problem in report.problems})

    def test_order(self) -> None:
        """Secrets that are not set are reported file by file, as the manifest is read; a default's problem once."""
        names = [f"part{number}" for number in range(8)]
        for name in reversed(names):
            self.part(name, fake(name, extra=f"handler_secrets = ['shop/{name}']"))
        files = [problem.file for problem in self.reload_failed().problems]
        self.assertEqual(files, [f"triggers.d/{name}.toml" for name in names])
        self.world.manifest(fake("a"), head=f"{HEAD}[defaults]\nhandler_secrets = ['shop/none']\n")
        for name in names:
            self.part(name, fake(name))
        (problem,) = self.reload_failed().problems
        self.assertIn("defaults.handler_secrets", problem.where)

    def reload_failed(self) -> ReloadReport:
        report = self.successResultOf(self.world.reload())
        self.assertEqual(report.status, ERROR)
        return report

    def test_drift(self) -> None:
        """A file that reads otherwise than the live generation is named."""
        self.part("one", fake("c") + "# more\n")
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described.drift, described.drifted_files), (True, (self.path("triggers.d/one.toml"),)))

    def test_rollback(self) -> None:
        """A rollback brings all files back out of the store, whatever is on disk, and is pinned by each of them."""
        number = self.world.serving.number
        self.part("one", fake("c", extra="timeout = '2s'"))
        self.part("two", fake("d"))
        self.reloaded()
        report = self.reloaded(recall=PREVIOUS, source="rollback")
        self.assertEqual((report.recalled, self.world.live().keys()), (number, {"a", "c"}))
        self.assertEqual(self.world.version("c").spec.timeout, 30.0)
        self.assertEqual(report.drifted_files, (self.path("triggers.d/one.toml"),))
        pin = present(self.world.serving.pin)
        self.assertLessEqual({self.path("harn.toml"), self.path("triggers.d/two.toml")}, pin.files.keys())

    def test_history_keeps_all_files(self) -> None:
        """The text of a generation in the store is that of every file."""
        digest = self.world.serving.inputs.manifest.digest
        packed = present(self.successResultOf(self.world.store.generations.manifest(digest)))
        files = ManifestSource.of(self.path("harn.toml"), unpack_manifest(packed)).files
        self.assertEqual(
            {each.path: each.data for each in files},
            {self.path(name): (self.world.root / name).read_bytes() for name in ("harn.toml", "triggers.d/one.toml")},
        )
