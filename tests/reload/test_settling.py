"""Files that are written while a reload reads them: those of one moment are adopted, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest import source
from harn.reload import build, inputs
from harn.reload.build import LONGEST_UNSETTLED as LONGEST
from harn.reload.build import PAUSE
from harn.reload.report import UNSETTLED
from harn.vm.bundle import Bundle
from tests.reload.world import World, fake

PAIR = "import a, b\n\ndef on_event(event):\n    return 1\n"


class SettlingTests(SynchronousTestCase):
    """A server of two modules that belong together."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()).absolute())
        self.read: Callable[[], None] = lambda: None
        self.readings = 0
        real = inputs.read_inputs

        def read_inputs(*arguments: Any) -> Any:
            self.readings += 1
            try:
                return real(*arguments)
            finally:
                self.read()

        self.patch(build, "read_inputs", read_inputs)
        self.count = 0
        self.write_pair()
        self.world.write("handlers.py", PAIR)
        self.world.manifest(fake("a"))
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.readings = 0

    def write_pair(self) -> None:
        """Write both modules again."""
        self.count += 1
        self.world.write("a.py", f"V = {self.count}\n")
        self.world.write("b.py", f"V = {self.count}\n")

    @property
    def bundle(self) -> Bundle:
        """Return the modules that serve."""
        live = self.world.coordinator.current
        assert live is not None
        return live.inputs.bundle

    def test_read_again(self) -> None:
        """What changed while it was read is read again, and what is adopted is of one moment."""

        def write() -> None:
            if self.readings < 3:
                self.write_pair()

        self.read = write
        self.write_pair()
        reloading = self.world.reload()
        self.world.clock.pump([PAUSE] * 3)
        self.assertTrue(self.successResultOf(reloading).ok)
        self.assertEqual(self.readings, 3)
        self.assertEqual(self.bundle.modules["a"].source, b"V = 4\n")
        self.assertEqual(self.bundle.modules["a"].source, self.bundle.modules["b"].source)

    def test_never_at_rest(self) -> None:
        """After a second the reload fails, names the files and says what to do; the live generation continues."""
        before = self.world.stands()
        self.read = self.write_pair
        reloading = self.world.reload()
        self.world.clock.pump([LONGEST / 10] * 12)
        report = self.successResultOf(reloading)
        self.assertEqual((report.status, report.stage, report.timed_out), (UNSETTLED, "resolve", False))
        self.assertIn(f"{self.world.root / 'a.py'} (and 1 more) keeps changing", str(report.error))
        self.assertIn("write a file beside it and move that into its place", str(report.error))
        self.assertLess(self.readings, 15)
        self.assertEqual(self.world.stands(), before)
        self.assertEqual(self.world.coordinator.waiting, report)
        self.read = lambda: None
        self.assertTrue(self.successResultOf(self.world.reload()).ok)

    def test_manifest_half_written(self) -> None:
        """A manifest that cannot be parsed, and changes meanwhile, is read again; one that stays so is refused."""
        whole = (self.world.root / "harn.toml").read_text()
        real = source.read_manifest

        def read_manifest(*arguments: Any) -> Any:
            source = real(*arguments)
            self.world.write("harn.toml", whole + "# more\n")
            self.patch(build, "read_manifest", real)
            return source

        self.world.write("harn.toml", "[[trig")
        self.patch(build, "read_manifest", read_manifest)
        reloading = self.world.reload()
        self.world.clock.pump([PAUSE] * 2)
        self.assertTrue(self.successResultOf(reloading).ok)
        self.world.write("harn.toml", "[[trig")
        self.assertEqual(self.successResultOf(self.world.reload()).stage, "parse")

    def test_module_that_comes_meanwhile(self) -> None:
        """A module that was missing when it was looked for, and came, is found: an editor had moved it away."""
        self.world.manifest(fake("a", handler="c:on_event"))

        def come() -> None:
            self.read = lambda: None
            self.world.write("c.py", "def on_event(event):\n    return 1\n")

        self.read = come
        reloading = self.world.reload()
        self.world.clock.pump([PAUSE] * 2)
        self.assertTrue(self.successResultOf(reloading).ok)

    def test_listing_alone(self) -> None:
        """A folder in which others make files, again and again, delays a refusal by one reading and no more."""
        self.read = lambda: self.world.write(f"note-{self.readings}.txt", "")
        self.world.manifest(fake("a", handler="none:on_event"))
        reloading = self.world.reload()
        self.world.clock.pump([PAUSE] * 2)
        self.assertEqual(self.successResultOf(reloading).stage, "resolve")
        self.assertEqual(self.readings, 2)

    def test_start(self) -> None:
        """A server that starts reads again as well."""
        world = self.world.restarted()
        self.world = world
        self.readings = 0
        self.read = lambda: self.write_pair() if self.readings < 2 else None
        starting = world.start()
        world.clock.pump([PAUSE] * 2)
        self.assertTrue(self.successResultOf(starting).ok)
        self.assertEqual(self.readings, 2)

    def test_fresh(self) -> None:
        """A file that was written just now is read once more, a little later: its stamp could hide the next change."""
        builder = self.world.builder
        builder.external = evolve(builder.external, settle=0.4)
        self.write_pair()
        reloading = self.world.reload()
        self.assertNoResult(reloading)
        self.write_pair()
        self.world.clock.pump([0.5, PAUSE, 0.5])
        self.assertTrue(self.successResultOf(reloading).ok)
        self.assertEqual(self.bundle.modules["a"].source, self.bundle.modules["b"].source)
