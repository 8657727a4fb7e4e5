"""Certificates as a part of each generation: checked with it, adopted with it, refused with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.listener.tls import load_context
from harn.reload.inputs import ExternalInputs
from tests.listener.test_tls import make_pair
from tests.reload.world import World, fake


class CertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        self.certificate, self.key = make_pair(str(self.world.root / "pki"), "one")
        self.loads = 0
        self.world.builder.external = ExternalInputs(
            environ=self.world.environ,
            certificate_files=(self.certificate, self.key),
            load_certificate=self.load,
            hash_key=b"k" * 32,
        )
        self.world.manifest(fake("a"))
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)

    def load(self) -> Any:
        self.loads += 1
        return load_context(self.certificate, self.key)

    def shown(self) -> Any:
        return self.world.coordinator.current.inputs.certificate

    def replace(self, certificate: str, key: str) -> None:
        shutil.copy(certificate, self.certificate)
        shutil.copy(key, self.key)

    def test_same_files(self) -> None:
        """While the files are the same, a new generation shows what the last one showed, tickets and all."""
        before = self.shown()
        self.assertIsNotNone(before)
        self.world.manifest(fake("a"), fake("b"))
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        self.assertIs(self.shown(), before)
        self.assertEqual(self.loads, 1)

    def test_other_files(self) -> None:
        """A new pair is a change by itself: another generation, with the new certificate."""
        before = self.shown()
        self.replace(*make_pair(str(self.world.root / "pki"), "two"))
        report = self.successResultOf(self.world.reload())
        self.assertEqual((report.generation, report.unchanged), (2, ("a",)))
        self.assertIsNot(self.shown(), before)

    def test_pair_that_does_not_match(self) -> None:
        """A key of another certificate refuses the reload in its stage resolve, names both, and the old pair stays."""
        before = self.world.stands()
        _, key = make_pair(str(self.world.root / "pki"), "two")
        shutil.copy(key, self.key)
        report = self.successResultOf(self.world.reload())
        self.assertEqual((report.ok, report.stage), (False, "resolve"))
        (problem,) = report.problems
        self.assertIn(self.key, problem.message)
        self.assertIn("does not belong to", problem.message)
        self.assertEqual(self.world.stands(), before)
        self.assertNotIn("PRIVATE", repr(self.world.coordinator.current.inputs))

    def test_missing_file(self) -> None:
        """A certificate that is gone refuses the reload; every other problem is reported beside it."""
        Path(self.certificate).unlink()
        self.world.manifest(fake("a", handler="nothing:none"))
        report = self.successResultOf(self.world.reload())
        self.assertEqual((report.stage, len(report.problems)), ("resolve", 2))
