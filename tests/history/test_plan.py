"""The details of a dry run: the contents of a plan, and the rollouts that would begin."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.history import plan as module
from harn.history.differences import field_changes
from harn.history.plan import Planned, Work, describe_plan, describe_terms
from harn.manifest.settings import OrchestratorSettings, ReloadSettings
from harn.model.quantities import FailureLimit
from harn.reload.changes import define
from harn.reload.generation import VersionNumbers
from harn.reload.inputs import Inputs
from harn.reload.report import ReloadRequest
from harn.reload.results import ProbationTerms
from harn.store.generations import LiveBinding
from harn.testing.manifests import manifest_text, trigger_text
from harn.triggers.binding import BindingVersion
from harn.triggers.reconcile import Plan, reconcile
from tests.reload.readings import Folder

NOTHING = {
    "triggers": {},
    "connectors": [],
    "secrets": [],
    "files": [],
    "settings": [],
    "requires_restart": [],
    "would_hold": False,
    "ramps": [],
}


def numbered(version: int, trigger_ids: Iterable[str]) -> VersionNumbers:
    """Return the numbers where each of these triggers has this version."""
    known = LiveBinding(version=version, fingerprint="", bundle_id="")
    return VersionNumbers(dict.fromkeys(trigger_ids, known))


class PlanCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Folder(Path(self.mktemp()))
        self.path = self.folder.path

    def plan(self, live: Inputs | None, following: Inputs, **more: Any) -> dict[str, Any]:
        """Plan to go from one to the other; every live trigger is at version 2, the next one is 3."""
        before = {} if live is None else define(live.manifest, live.bundle, {})
        after = define(following.manifest, following.bundle, before)
        bindings = {key: BindingVersion(each, 2, "sha256:bundle") for key, each in before.items()}
        planned = Planned(
            plan=reconcile(before, after),
            live=live,
            following=following,
            bindings=bindings,
            versions=numbered(2, before),
        )
        found: dict[str, Any] = json.loads(msgspec.json.encode(describe_plan(replace(planned, **more))))
        return found


class TriggersTests(PlanCase):
    """What happens to each trigger."""

    def test_nothing(self) -> None:
        """Triggers that stay the same are not listed."""
        inputs = self.folder.read(trigger_text("a"))
        self.assertEqual(self.plan(inputs, inputs), NOTHING)

    def test_modified(self) -> None:
        """A modified trigger: its fields and files, old and new, its versions, and its unfinished deliveries."""
        live = self.folder.read(trigger_text("gh"), trigger_text("other"))
        self.folder.write(handlers="def on_event(event):\n    return 2\n")
        following = self.folder.read(trigger_text("gh", extra='timeout = "5s"'), trigger_text("other"), previous=live)
        found = self.plan(live, following, work={"gh": Work(in_flight=4, running=1, queued=2, waiting=7)})
        code = [
            {
                "path": self.path("handlers.py"),
                "change": "modified",
                "old": live.bundle.modules["handlers"].digest,
                "new": following.bundle.modules["handlers"].digest,
            }
        ]
        self.assertEqual(
            found["triggers"],
            {
                "gh": {
                    "action": "modified",
                    "fields": [{"key": "timeout", "old": "30s", "new": "5s"}],
                    "code": code,
                    "versions": {"live": "gh@v2", "next": "gh@v3"},
                    "in_flight": 4,
                    "running": 1,
                    "queued": 2,
                    "waiting": 7,
                },
                "other": {
                    "action": "modified",
                    "fields": [],
                    "code": code,
                    "versions": {"live": "other@v2", "next": "other@v3"},
                    "in_flight": 0,
                    "running": 0,
                    "queued": 0,
                    "waiting": 0,
                },
            },
        )
        self.assertEqual(
            [(each["path"], each["change"]) for each in found["files"]],
            [(self.path("handlers.py"), "modified"), (self.path("harn.toml"), "modified")],
        )

    def test_added_and_removed(self) -> None:
        """What comes and what goes: all that it says, and of its files those that come or go with it."""
        self.folder.write(old="def f(event): pass\n", new="def f(event): pass\n")
        live = self.folder.read(trigger_text("gone", handler="old:f"), trigger_text("stays"))
        following = self.folder.read(
            trigger_text("came", handler="new:f"), trigger_text("second"), trigger_text("stays"), previous=live
        )
        found = self.plan(live, following)["triggers"]
        self.assertEqual(list(found), ["came", "second", "gone"])
        self.assertEqual(
            [(each["action"], each["versions"]) for each in found.values()],
            [
                ("added", {"live": None, "next": "came@v1"}),
                ("added", {"live": None, "next": "second@v1"}),
                ("removed", {"live": "gone@v2", "next": None}),
            ],
        )
        self.assertEqual(
            [[(each["path"], each["change"]) for each in entry["code"]] for entry in found.values()],
            [[(self.path("new.py"), "added")], [], [(self.path("old.py"), "removed")]],
        )
        handlers = [
            (each["old"], each["new"])
            for entry in found.values()
            for each in entry["fields"]
            if each["key"] == "handler"
        ]
        self.assertEqual(handlers, [(None, "new:f"), (None, "handlers:on_event"), ("old:f", None)])

    def test_first(self) -> None:
        """Before the first generation everything is added."""
        found = self.plan(None, self.folder.read(trigger_text("a")))
        self.assertEqual(found["triggers"]["a"]["action"], "added")
        self.assertEqual([each["change"] for each in found["triggers"]["a"]["code"]], ["added"])
        self.assertEqual([each["old"] for each in (*found["secrets"], *found["files"])], [None, None, None])
        self.assertEqual((found["settings"], found["would_hold"]), ([], False))

    def test_emptied(self) -> None:
        """A manifest that loses most of its triggers would be held; one that loses half of them would not."""
        texts = [trigger_text(each) for each in "abcd"]
        live = self.folder.read(*texts)
        held = [self.plan(live, self.folder.read(*texts[:left], previous=live))["would_hold"] for left in range(5)]
        self.assertEqual(held, [True, True, False, False, False])

    def test_ramps(self) -> None:
        """The ramps that would begin are listed as they are given."""
        inputs = self.folder.read(trigger_text("a"))
        self.assertEqual(self.plan(inputs, inputs, ramps=({"trigger_id": "a"},))["ramps"], [{"trigger_id": "a"}])

    def test_cost(self) -> None:
        """Of two thousand triggers those that stay the same are not looked at."""
        live = self.folder.read(manifest_text(2_000))
        following = self.folder.read(manifest_text(2_000, changed=(5,)), previous=live)
        looked: list[str] = []
        real = field_changes

        def looking(old: Any, new: Any) -> Any:
            looked.append(new.id)
            return real(old, new)

        self.patch(module, "field_changes", looking)
        found = self.plan(live, following)
        self.assertEqual((list(found["triggers"]), looked), (["t5"], ["t5"]))


class SurroundingsTests(PlanCase):
    """Secrets, settings, connectors."""

    def test_settings(self) -> None:
        """Settings old and new; what waits for a restart is named as long as it does."""
        live = self.folder.read(head='[orchestrator]\nallow_empty = true\nrecover = "manual"\n')
        head = '[orchestrator]\nallow_empty = true\nrecover = "manual"\nmax_body_bytes = 7\n'
        found = self.plan(live, self.folder.read(head=head), started_with=OrchestratorSettings())
        self.assertEqual(
            found["settings"],
            [{"key": "orchestrator.max_body_bytes", "old": 10_485_760, "new": 7, "applies": "reload"}],
        )
        self.assertEqual(found["requires_restart"], ["orchestrator.recover"])

    def test_rotated_secret(self) -> None:
        """A rotated secret replaces the connectors that use it, modifies no trigger, and is shown as digests."""
        live = self.folder.read(trigger_text("a"), trigger_text("b", secret="other"))
        self.folder.environ["HARN_SECRET_GITHUB_OTHER"] = "hunter2"
        following = self.folder.read(trigger_text("a"), trigger_text("b", secret="other"), previous=live)
        found = self.plan(live, following)
        self.assertEqual(found["triggers"], {})
        self.assertEqual(
            found["connectors"], [{"trigger_id": "b", "action": "replace", "why": ["value of github/other"]}]
        )
        (secret,) = found["secrets"]
        self.assertEqual(secret["reference"], "github/other")
        self.assertRegex(f"{secret['old']} {secret['new']}", r"^keyed:[0-9a-f]{12} keyed:[0-9a-f]{12}$")
        self.assertNotEqual(secret["old"], secret["new"])
        self.assertNotIn("hunter2", repr(found))

    def test_connectors(self) -> None:
        """One starts, one stops, one is replaced with the reasons; one whose handler alone changes stays."""
        webhook = '[triggers.webhook]\nsignature_scheme = "{}"\n'
        live = self.folder.read(
            trigger_text("gone"),
            trigger_text("moves"),
            trigger_text("kept", handler="handlers:on_event"),
            trigger_text("table", provider="webhook", secret="key", extra=webhook.format("github")),
        )
        self.folder.write(handlers="def on_event(event): pass\ndef other(event): pass\n")
        following = self.folder.read(
            trigger_text("came"),
            trigger_text("moves", extra='path = "/elsewhere"', events=("push",)),
            trigger_text("kept", handler="handlers:other"),
            trigger_text("table", provider="webhook", secret="key", extra=webhook.format("slack")),
            previous=live,
        )
        found = {each["trigger_id"]: (each["action"], each["why"]) for each in self.plan(live, following)["connectors"]}
        self.assertEqual(
            found,
            {
                "came": ("start", ["the trigger is new"]),
                "gone": ("stop", ["the trigger is removed"]),
                "moves": ("replace", ["match.events", "path"]),
                "table": ("replace", ["webhook.signature_scheme"]),
            },
        )

    def test_other_name_of_a_secret(self) -> None:
        """A reference of another name and the same value replaces no connector; one of another value does."""
        live = self.folder.read(trigger_text("a"))
        same = self.folder.read(trigger_text("a", secret="other"), previous=live)
        self.assertEqual(self.plan(live, same)["connectors"], [])
        self.folder.environ["HARN_SECRET_GITHUB_OTHER"] = "s-2"
        (other,) = self.plan(live, self.folder.read(trigger_text("a", secret="other"), previous=live))["connectors"]
        self.assertEqual(other["why"], ["secrets.signing_secret"])

    @given(st.data())
    def test_connectors_are_replaced_for_a_reason(self, data: st.DataObject) -> None:
        """A connector is replaced exactly when a reason for it can be named."""
        triggers = st.builds(
            trigger_text,
            st.just("a"),
            handler=st.sampled_from(["handlers:on_event", "handlers.on_event"]),
            events=st.sampled_from([(), ("push",)]),
            secret=st.sampled_from(["webhook-secret", "other"]),
            extra=st.sampled_from(["", 'timeout = "5s"', 'path = "/other"', 'path = "/other"\ntimeout = "5s"']),
        )
        rotated = data.draw(st.booleans())
        live = self.folder.read(data.draw(triggers))
        following = self.folder.read(data.draw(triggers), previous=live)
        if rotated:
            hashes = dict.fromkeys(following.secret_hashes, "keyed:" + "0" * 64)
            following = evolve(following, secret_hashes=hashes)
        found = self.plan(live, following)["connectors"]
        was, would_be = live.manifest.triggers["a"], following.manifest.triggers["a"]
        before = [live.secret_hashes[text] for text in was.secrets["signing_secret"]]
        after = [following.secret_hashes[text] for text in would_be.secrets["signing_secret"]]
        replaced = (was.events, was.path, before) != (would_be.events, would_be.path, after)
        self.assertEqual([each["action"] for each in found], ["replace"] if replaced else [])
        self.assertTrue(all(each["why"] for each in found))


class GivenTests(SynchronousTestCase):
    """Values are given, never guessed."""

    def test_plan_is_the_reloads(self) -> None:
        """The triggers are those of the plan that a reload would carry out, and in its order."""
        folder = Folder(Path(self.mktemp()))
        inputs = folder.read(*(trigger_text(each) for each in "abc"))
        planned = Planned(
            plan=Plan(added=("b",), modified=("c",), removed=("a",)),
            live=inputs,
            following=inputs,
            bindings={},
            versions=numbered(8, "abc"),
        )
        found = describe_plan(planned).triggers
        self.assertEqual(
            [(key, each.action) for key, each in found.items()],
            [("b", "added"), ("c", "modified"), ("a", "removed")],
        )
        self.assertEqual([each.versions.next for each in found.values()], ["b@v9", "c@v9", None])


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
