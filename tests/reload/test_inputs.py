"""Inputs of a generation beside code: secrets of alerts, certificates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.listener.tls import load_context
from harn.model.problem import Problem
from harn.reload.inputs import ExternalInputs, ICertificateFiles
from harn.reload.interfaces import Adopted
from tests.listener.test_tls import make_pair
from tests.reload.case import GenerationCase
from tests.reload.world import World, fake

ALERT = '[[triggers.alerts]]\non = "late"\nto = "slack"\nurl_secret = "alerts/slack"\n'
SIGNED = (
    '[[orchestrator.alerts]]\non = "late"\nto = "webhook"\naddress = "https://x.test/"\nsigning_secret = "alerts/key"\n'
)
HEAD = "[orchestrator]\nallow_empty = true\n"
URL = "https://hooks.test/services/T0/B0/x"


class AlertSecretTests(GenerationCase):
    def setUp(self) -> None:
        super().setUp()
        self.adopted: list[Adopted] = []
        self.world.lifecycle.subscribe(Adopted, self.adopted.append)

    def given(self) -> dict[str, bytes]:
        """Return the values that the last adoption came with."""
        return dict(self.adopted[-1].candidate.alert_secrets)

    def refused(self) -> Problem:
        """Reload, see it refused at stage resolve for one problem, and give that."""
        report = self.successResultOf(self.world.reload())
        self.assertEqual((report.status, report.stage, len(report.problems)), ("error", "resolve", 1), report)
        return report.problems[0]

    def test_missing(self) -> None:
        """One that does not exist refuses the reload, with file, line and key, and what to set."""
        self.started(fake("a"))
        self.world.manifest(fake("a", extra=ALERT))
        self.assertEqual(
            str(self.refused()),
            "harn.toml:13: triggers[0] (a): alerts[0].url_secret: secret alerts/slack is not set; "
            "set HARN_SECRET_ALERTS_SLACK, or set HARN_SECRET_ALERTS_SLACK_FILE to the path of a file that holds it",
        )
        self.world.manifest(fake("a"), head=HEAD + SIGNED)
        self.assertIn("orchestrator.alerts[0].signing_secret: secret alerts/key is not set", str(self.refused()))

    def test_unusable(self) -> None:
        """A value with which nothing could be sent refuses the reload; it is not shown."""
        self.started(fake("a"))
        self.world.environ.update(HARN_SECRET_ALERTS_SLACK="T0-is-not-a-url", HARN_SECRET_ALERTS_KEY="{nothing}")
        self.world.manifest(fake("a", extra=ALERT))
        problem = self.refused()
        self.assertIn("the value of secret alerts/slack cannot be used: must begin with https://", problem.message)
        self.assertNotIn("T0", str(problem))
        self.world.manifest(fake("a"), head=HEAD + SIGNED)
        self.assertIn("it must be base64", self.refused().message)

    def test_adopted(self) -> None:
        """The values come with the adoption, those alone, and are not kept by the generation."""
        self.world.environ["HARN_SECRET_ALERTS_SLACK"] = URL
        self.started(fake("a", extra='secrets = { token = "fake/token" }\n' + ALERT))
        self.assertEqual(self.given(), {"alerts/slack": URL.encode()})
        self.assertNotIn(URL, repr(self.adopted[-1].candidate))
        self.assertEqual(self.adopted[-1].candidate.generation.inputs.secrets, {})

    def test_rotated(self) -> None:
        """A secret with another value is a new generation without a new version."""
        self.world.environ["HARN_SECRET_ALERTS_SLACK"] = URL
        self.started(fake("a", extra=ALERT))
        self.world.environ["HARN_SECRET_ALERTS_SLACK"] = URL + "2"
        report = self.reloaded()
        self.assertEqual((report.generation, report.renewed, report.modified), (2, ("secret alerts/slack",), ()))
        self.assertEqual(self.given(), {"alerts/slack": URL.encode() + b"2"})

    def test_edited(self) -> None:
        """An edit of a trigger's alerts modifies it, and leaves its connector as it is."""
        self.world.environ["HARN_SECRET_ALERTS_SLACK"] = URL
        self.started(fake("a", extra=ALERT))
        connector = self.world.plugin.of("a")
        report = self.reloaded(fake("a", extra=ALERT + "every = '2h'\n"))
        self.assertEqual((report.modified, report.changes["a"]), (("a",), ("alerts",)))
        self.assertIs(self.world.plugin.of("a"), connector)


@implementer(ICertificateFiles)
class CertificateTests(SynchronousTestCase):
    """A server whose certificate the test loads."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        self.certificate, self.key = make_pair(str(self.world.root / "pki"), "one")
        self.paths = (self.certificate, self.key)
        self.loads = 0
        self.world.builder.external = ExternalInputs(
            environ=self.world.environ,
            certificate=self,
            hash_key=b"k" * 32,
        )
        self.world.manifest(fake("a"))
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)

    def load(self) -> Any:
        self.loads += 1
        return load_context(self.certificate, self.key)

    def shown(self) -> Any:
        return self.world.serving.inputs.certificate

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
        self.assertNotIn("PRIVATE", repr(self.world.serving.inputs))

    def test_missing_file(self) -> None:
        """A certificate that is gone refuses the reload; every other problem is reported beside it."""
        Path(self.certificate).unlink()
        self.world.manifest(fake("a", handler="nothing:none"))
        report = self.successResultOf(self.world.reload())
        self.assertEqual((report.stage, len(report.problems)), ("resolve", 2))
