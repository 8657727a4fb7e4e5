"""Plans, rollbacks and what is done with generations, through the whole tree."""

from __future__ import annotations

from harn.errors import PreconditionFailed, RouteUnknown
from harn.model.quantities import FailureLimit
from harn.reload.report import PREVIOUS
from tests.listener.test_admin import AdminCase


class PlanTests(AdminCase):
    """``/admin/plan``, and what else a reload may be asked."""

    def test_plan_is_a_dry_run(self) -> None:
        """A plan is a reload that changes nothing, with the same options."""
        self.ask("POST", "/admin/plan?force=true&replay=50&ramp=10%25", b'{"source":"ci"}', If_Match='"7-abc"')
        self.ask(
            "POST", "/admin/reload?dry_run=true&force=true&replay=50&ramp=10", b'{"source":"ci"}', If_Match="7-abc"
        )
        planned, tried = self.reloader.asked
        self.assertEqual(planned, tried)
        self.assertEqual((planned.dry_run, planned.force, planned.replay, planned.ramp), (True, True, 50, 0.1))

    def test_wishes(self) -> None:
        """Share, time to confirm and limit of failures reach the reloader as numbers."""
        query = "ramp=12.5%&confirm_within=90s&revert_on_failures=20%25&min=5&for=2m"
        self.ask("POST", f"/admin/reload?{query}")
        (asked,) = self.reloader.asked
        self.assertEqual((asked.ramp, asked.confirm_within, asked.revert_for), (0.125, 90.0, 120.0))
        self.assertEqual(asked.revert_limit, FailureLimit(rate=0.2, minimum=5))
        self.assertFalse(asked.is_plain)

    def test_limit_of_failures_alone(self) -> None:
        """Failures count from 20 attempts, and the manifest says for how long, unless the request does."""
        self.ask("POST", "/admin/reload?revert_on_failures=0%25")
        (asked,) = self.reloader.asked
        self.assertEqual((asked.revert_limit, asked.revert_for), (FailureLimit(rate=0.0, minimum=20), None))

    def test_refused(self) -> None:
        """An invalid option, alone or with others, is 400, says which option is wrong, and reloads nothing."""
        for query, named in (
            ("replay=5", "dry_run"),
            ("dry_run=true&replay=0", "replay"),
            ("dry_run=true&replay=1001", "replay"),
            ("dry_run=true&replay=", "replay"),
            ("ramp=0%25", "ramp"),
            ("ramp=100%25", "ramp"),
            ("ramp=-5%25", "ramp"),
            ("ramp=1e1", "ramp"),
            ("ramp=0.1", "'0.1' could be 0.1 % or 10 %"),
            ("ramp=", "ramp"),
            ("ramp=" + "9" * 5000, "ramp"),
            ("confirm_within=60", "confirm_within: must be a duration, got '60'; write a number and"),
            ("confirm_within=0s", "confirm_within"),
            ("confirm_within=", "confirm_within"),
            ("confirm_within=99999d", "confirm_within"),
            ("revert_on_failures=100%25", "revert_on_failures"),
            ("revert_on_failures=some", "revert_on_failures"),
            ("revert_on_failures=0.2", "revert_on_failures"),
            ("min=5", "revert_on_failures"),
            ("for=2m", "revert_on_failures"),
            ("revert_on_failures=5&min=0", "min"),
            ("revert_on_failures=5&min=x", "min"),
            ("revert_on_failures=5&for=0s", "for"),
            ("recall=3", "recall"),
        ):
            answer = self.ask("POST", f"/admin/reload?{query}")
            self.assertEqual(answer.status, 400, query)
            self.assertIn(named, answer.json()["detail"], query)
        for query in ("dry_run=false", "dry_run=true", "replay=x"):
            self.assertEqual(self.ask("POST", f"/admin/plan?{query}").status, 400, query)
        self.assertEqual(self.reloader.asked, [])


class RollbackTests(AdminCase):
    """``/admin/rollback``."""

    def test_to_the_one_before(self) -> None:
        """Without a number it goes to the last other content, and is labelled so."""
        answer = self.ask("POST", "/admin/rollback")
        (asked,) = self.reloader.asked
        self.assertEqual((asked.recall, asked.source, asked.dry_run), (PREVIOUS, "rollback", False))
        self.assertTrue(asked.actor.startswith("key:"))
        self.assertEqual((answer.status, answer.headers["etag"]), (200, '"7-abc"'))

    def test_options(self) -> None:
        """A number, a label, a precondition, force and a dry run reach the reloader."""
        body = b'{"generation":3,"source":"cli","request_id":"x"}'
        self.ask("POST", "/admin/rollback?dry_run=1&force=1", body, If_Match='"6-x"')
        (asked,) = self.reloader.asked
        self.assertEqual((asked.recall, asked.source, asked.if_match), (3, "cli", '"6-x"'))
        self.assertEqual((asked.dry_run, asked.force), (True, True))

    def test_another_came_between(self) -> None:
        """A precondition that fails is 412 with both tags, as on a reload."""
        self.reloader.report = PreconditionFailed("another reload came between")
        answer = self.ask("POST", "/admin/rollback", If_Match='"6-x"')
        self.assertEqual((answer.status, answer.json()["if_match"]), (412, '"6-x"'))

    def test_unknown_generation(self) -> None:
        """A generation that is not kept is 404 with what is."""
        self.reloader.report = RouteUnknown("the content of generation 3 is not kept; kept are: 5, 6")
        answer = self.ask("POST", "/admin/rollback", b'{"generation":3}')
        self.assertEqual((answer.status, "kept are: 5, 6" in answer.json()["detail"]), (404, True))

    def test_refused(self) -> None:
        """A value that cannot be a generation's number, and an option of a reload of the files, is 400."""
        for target, body in (
            ("/admin/rollback", b'{"generation":0}'),
            ("/admin/rollback", b'{"generation":-1}'),
            ("/admin/rollback", b'{"generation":true}'),
            ("/admin/rollback", b'{"generation":"3"}'),
            ("/admin/rollback", b'{"generation":3.5}'),
            ("/admin/rollback", b'{"generation":99999999999999999999999}'),
            ("/admin/rollback", b'{"source":"signal"}'),
            ("/admin/rollback", b'{"to":3}'),
            ("/admin/rollback?ramp=10", b""),
            ("/admin/rollback?generation=3", b""),
        ):
            self.assertEqual(self.ask("POST", target, body).status, 400, (target, body))
        self.assertEqual(self.reloader.asked, [])
