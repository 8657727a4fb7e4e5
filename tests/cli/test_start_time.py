"""What the command costs before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.store.lock import StateDirectoryLock

HEAVY = ("twisted", "zope", "rich", "msgspec", "attr", "sqlite3", "ssl", "importlib.metadata", "asyncio")


class StartTests(SynchronousTestCase):
    """Imports of commands, in a process of their own."""

    def imported(self, *arguments: str) -> tuple[str, set[str]]:
        """Run ``harn`` with these words; give what it printed and the modules that it imported."""
        program = (
            "import sys\n"
            f"sys.argv = ['harn', *{list(arguments)!r}]\n"
            "from harn.cli.main import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "print('\\n'.join(sys.modules), file=sys.stderr)\n"
        )
        environ = {**os.environ, "PYTHONPATH": str(Path(harn.__file__).parent.parent)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout, set(done.stderr.split())

    def test_version_imports_nothing_heavy(self) -> None:
        """``harn --version`` prints the version and imports click and little else."""
        said, modules = self.imported("--version")
        self.assertEqual(said, f"harn {harn.__version__}\n")
        self.assertEqual([name for name in HEAVY if name in modules], [])

    def test_clients_do_not_import_twisted(self) -> None:
        """A command that only talks to a server does without Twisted."""
        for command in ("reload", "rollback", "ramp", "drains"):
            _, modules = self.imported("orchestrator", command, "--state-dir", "/nonexistent")
            self.assertIn("harn.cli.client", modules)
            self.assertEqual([name for name in ("twisted", "sqlite3", "rich") if name in modules], [], command)

    def test_second_server_is_refused_before_it_loads_a_server(self) -> None:
        """A server for a state directory that another holds ends before it has loaded a reactor, or opened a log."""
        state_dir = os.path.abspath(self.mktemp())
        lock = StateDirectoryLock(state_dir)
        lock.acquire()
        self.addCleanup(lock.release)
        said, modules = self.imported("orchestrator", "serve", "--state-dir", state_dir)
        self.assertIn("harn.store.lock", modules)
        self.assertEqual([name for name in ("twisted.internet.reactor", "klein", "sqlite3") if name in modules], [])
        self.assertEqual((said, os.listdir(state_dir)), ("", ["lock"]))
