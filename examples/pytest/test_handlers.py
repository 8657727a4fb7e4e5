"""Tests of the handlers, without a server: `python -m pytest` in this folder."""

from pathlib import Path

import handlers
import pytest

from harn.testing.handlers import github, load_fixture, run_handler

HERE = Path(__file__).parent
SECRETS = {"github/token": "for tests"}


def run(event, **options):
    """Run the handler as the manifest says: after its predicate."""
    return run_handler("handlers:on_event", event, when="handlers:is_person", secrets=SECRETS, **options)


@pytest.mark.parametrize(("title", "label"), [("Outage in Paris", "urgent"), ("A typo", "triage")])
def test_label(title, label):
    body = {"action": "opened", "issue": {"number": 7, "title": title}, "sender": {"type": "User"}}
    found = run(github("issues.opened", body=body))
    assert found.outcome == "success"
    assert found.result == {"number": 7, "label": label}
    assert found.log[0].fields["label"] == label


def test_bots_are_skipped():
    found = run(github("issues.opened", body={"action": "opened", "sender": {"type": "Bot"}}))
    assert found.outcome == "skipped"


def test_deploy():
    found = run(github("push"), attempt=2)
    assert found.result == {"deployed": "6dcb09b5b57875f334f61aebed695e2e4193db5e", "attempt": 2}


def test_one_deploy_at_a_time(monkeypatch):
    monkeypatch.setattr(handlers, "BUSY", {"octo-org/hello-world"})
    found = run(github("push"))
    assert (found.error_class, found.retry_after) == ("retry_after", 30)


def test_no_issue():
    found = run(github("issues.opened", body={"action": "opened", "sender": {"type": "User"}}))
    assert (found.outcome, found.error) == ("denied", "an issue event without an issue")


def test_recorded_body():
    found = run(github("issues.opened", body=HERE / "recorded.json"))
    assert found.result == {"number": 12, "label": "urgent"}


def test_exported_delivery():
    """A delivery that failed, written by `harn export EVENT_ID exported.json`."""
    found = run(load_fixture(HERE / "exported.json"))
    assert found.outcome == "success"
