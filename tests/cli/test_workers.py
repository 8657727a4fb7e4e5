"""The options with which several workers are refused."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.cli.workers import WorkersRefused, refuse_lone_store, refuse_ports
from harn.options import ServeOptions


class RefusedTests(SynchronousTestCase):
    """Nothing is opened or written before these checks."""

    def setUp(self) -> None:
        """Make a directory for the manifest."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def options(self, manifest: str | None = None, **given: str) -> ServeOptions:
        """Return options, with a manifest of this text."""
        if manifest is not None:
            with open(os.path.join(self.directory, "harn.toml"), "w", encoding="utf-8") as file:
                file.write(manifest)
        return ServeOptions.from_values({"workers": "4", "state_dir": "state", **given}, {}, self.directory)

    def test_store(self) -> None:
        """SQLite is refused with what to set; PostgreSQL passes, whoever names it."""
        error = self.assertRaises(WorkersRefused, refuse_lone_store, self.options("[orchestrator]\n"))
        for words in ("--workers 4", "SQLite in", '[orchestrator] store = "postgresql://..."', "harn.toml"):
            self.assertIn(words, str(error))
        refuse_lone_store(self.options('[orchestrator]\nstore = "postgresql://harn@db/harn"\n'))
        refuse_lone_store(self.options("", store="postgresql://harn@db/harn"))

    def test_a_manifest_that_cannot_be_read(self) -> None:
        """It is for the first worker to report, with each of its problems."""
        refuse_lone_store(self.options())
        refuse_lone_store(self.options("[[triggers"))

    def test_ports(self) -> None:
        """Each worker needs a port for its own pages."""
        for bind in ("h:65532", "h:0", "unix:/a"):
            refuse_ports(self.options(admin_bind=bind))
        refuse_ports(self.options())
        error = self.assertRaises(WorkersRefused, refuse_ports, self.options(admin_bind="h:65533"))
        self.assertIn("at most 65532 for 4 workers", str(error))
