"""What a dry run says of trials that would begin."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.history.planning import describe_terms
from harn.manifest.settings import ReloadSettings
from harn.model.quantities import FailureLimit
from harn.reload.plans import ProbationTerms
from harn.reload.report import ReloadRequest


class TermsTests(SynchronousTestCase):
    """`describe_terms`."""

    def test_none(self) -> None:
        """There is none if the request asks for none, or is a rollback, which ends one."""
        settings = ReloadSettings(confirm_within=60.0)
        self.assertIsNone(describe_terms(ReloadRequest(source="cli", actor="me"), ReloadSettings()))
        self.assertIsNone(describe_terms(ReloadRequest(source="cli", actor="me", recall=3), settings))

    def test_of_the_request(self) -> None:
        """What the request says wins over the manifest, and the rest is the manifest's; all as people write it."""
        settings = ReloadSettings(confirm_within=30.0, revert_for=300.0)
        limit = FailureLimit(rate=0.125, minimum=5)
        asked = ReloadRequest(source="cli", actor="me", confirm_within=90.0, revert_limit=limit)
        self.assertEqual(
            describe_terms(asked, settings),
            ProbationTerms(confirm_within="90s", revert_on_failures="12.5%", minimum=5, watch_for="5m"),
        )

    def test_of_the_manifest(self) -> None:
        """A plain reload is on the probation that the manifest wants of each."""
        settings = ReloadSettings(revert_on_failures=0.2, revert_min=7, revert_for=60.0)
        self.assertEqual(
            describe_terms(ReloadRequest(source="file_watch", actor="watch"), settings),
            ProbationTerms(revert_on_failures="20%", minimum=7, watch_for="1m"),
        )
