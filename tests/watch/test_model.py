"""What is made of a look: tables of cases, and what holds for any."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.problem import Problem
from harn.reload.generation import Pin
from harn.reload.report import ERROR, NEEDS_CONFIRMATION, OK, STAGES, UNSETTLED, ReloadReport
from harn.vm.bundle import Module, make_bundle
from harn.watch.model import UNREADABLE, FileStatus, ReloadOutcome, Seen, Watched, classify, reload_outcome, restless

MANIFEST, MODULE, RULE, KEY = "/c/harn.toml", "/c/handlers.py", "/c/rules/one.py", "/c/key"
LIVE = {MANIFEST: "m1", MODULE: "h1", RULE: "r1", KEY: "k1"}


def watched(**more: Any) -> Watched:
    module = Module(name="rules.one", path=RULE, source=b"", is_package=False)
    bundle = make_bundle({"rules.one": module}, frozenset(("rules.one",)))
    replaced = more.pop("replaced", {})
    pin = Pin(replaced) if replaced else None
    paths = frozenset((*LIVE, *replaced))
    return Watched(paths=paths, live=LIVE, manifest=MANIFEST, bundle=bundle, include=("rules/*.py",), pin=pin, **more)


def seen(changes: dict[str, str] = {}, **more: Any) -> Seen:
    return Seen(
        content={**LIVE, **changes},
        empty=frozenset(more.pop("empty", ())),
        missing=frozenset(more.pop("missing", ())),
        newcomers=frozenset(more.pop("newcomers", ())),
    )


class JudgementTests(SynchronousTestCase):
    def assert_standing(self, expected: FileStatus, look: Seen, **more: Any) -> str:
        classification = classify(look, watched(**more))
        self.assertEqual(classification.status, expected, classification)
        self.assertEqual(bool(classification.why), expected is FileStatus.UNFIT)
        return classification.why

    def test_live_and_changed(self) -> None:
        """What reads as it is live is live; another digest, or a newcomer, is a change."""
        self.assert_standing(FileStatus.LIVE, seen())
        self.assert_standing(FileStatus.LIVE, seen({"/c/other.py": "o"}))
        for path in LIVE:
            self.assert_standing(FileStatus.CHANGED, seen({path: "2"}))
        self.assert_standing(FileStatus.CHANGED, seen({"/c/rules/two.py": "n"}, newcomers=["/c/rules/two.py"]))
        self.assert_standing(FileStatus.LIVE, seen(newcomers=[RULE]))

    def test_manifest_that_is_no_manifest(self) -> None:
        """A manifest that is gone, empty or no file is unfit, whatever else changed."""
        for changes in ({}, {MODULE: "h2"}):
            why = self.assert_standing(FileStatus.UNFIT, seen({**changes, MANIFEST: UNREADABLE}, missing=[MANIFEST]))
            self.assertEqual(why, f"{MANIFEST} is missing; put it back")
            why = self.assert_standing(FileStatus.UNFIT, seen({**changes, MANIFEST: UNREADABLE}))
            self.assertEqual(why, f"{MANIFEST} cannot be read; put it back")
            why = self.assert_standing(FileStatus.UNFIT, seen({**changes, MANIFEST: "nothing"}, empty=[MANIFEST]))
            self.assertEqual(why, f"{MANIFEST} is empty; write it whole")

    def test_emptied(self) -> None:
        """A file that was not empty and is now is unfit, whatever else changed; one that always was is not."""
        why = self.assert_standing(FileStatus.UNFIT, seen({MODULE: "nothing", KEY: "k2"}, empty=[MODULE]))
        self.assertIn(f"{MODULE} is empty; write it whole, or ask for a reload", why)
        self.assert_standing(FileStatus.UNFIT, seen({RULE: "nothing"}, empty=[RULE]))
        self.assert_standing(FileStatus.LIVE, seen(empty=[MODULE]))
        why = self.assert_standing(FileStatus.UNFIT, seen({MODULE: "nothing", KEY: "nothing"}, empty=[KEY, MODULE]))
        self.assertTrue(why.startswith(f"{MODULE} (and 1 more) is empty"))

    def test_gone(self) -> None:
        """Files that are gone are unfit while nothing else changed; with other changes a reload decides."""
        for path in (MODULE, KEY):
            why = self.assert_standing(FileStatus.UNFIT, seen({path: UNREADABLE}, missing=[path]))
            self.assertTrue(why.startswith(f"{path} is missing; put it back, or ask for a reload"))
            why = self.assert_standing(FileStatus.UNFIT, seen({path: UNREADABLE}))
            self.assertTrue(why.startswith(f"{path} cannot be read"))
            self.assert_standing(FileStatus.CHANGED, seen({path: UNREADABLE, MANIFEST: "m2"}, missing=[path]))
            gone = seen({path: UNREADABLE, "/c/n.py": "n"}, missing=[path], newcomers=["/c/n.py"])
            self.assert_standing(FileStatus.CHANGED, gone)

    def test_matches_of_a_pattern_may_go(self) -> None:
        """A file that is there for a pattern's sake may be deleted; one that cannot be read is unfit like any."""
        self.assert_standing(FileStatus.CHANGED, seen({RULE: UNREADABLE}, missing=[RULE]))
        self.assert_standing(FileStatus.UNFIT, seen({RULE: UNREADABLE}))

    def test_replaced(self) -> None:
        """What a rollback replaced is left alone, odd as it may be, until a byte of it changes."""
        replaced = {MANIFEST: "m2", MODULE: "nothing", "/c/new.py": "n2"}
        look = seen(replaced, empty=[MODULE], newcomers=["/c/new.py"])
        self.assert_standing(FileStatus.PINNED, look, replaced=replaced)
        self.assert_standing(FileStatus.CHANGED, seen({**replaced, MODULE: "h3"}), replaced=replaced)
        more = seen(replaced, newcomers=["/c/new.py", "/c/known-to-the-earlier-one.py"])
        self.assert_standing(FileStatus.PINNED, more, replaced=replaced)
        self.assert_standing(FileStatus.LIVE, seen(), replaced=replaced)

    def test_secrets_beside_what_was_replaced(self) -> None:
        """Beside the replaced files a secret may change: it is read again; one that is gone or empty is unfit."""
        replaced = {MANIFEST: "m2", MODULE: "h2", RULE: "r1"}
        self.assert_standing(FileStatus.RENEWED, seen({**replaced, KEY: "k2"}), replaced=replaced)
        self.assert_standing(FileStatus.CHANGED, seen({**replaced, MODULE: "h3", KEY: "k2"}), replaced=replaced)
        self.assert_standing(FileStatus.CHANGED, seen({KEY: "k2"}), replaced=replaced)
        why = self.assert_standing(FileStatus.UNFIT, seen({**replaced, KEY: "e"}, empty=[KEY]), replaced=replaced)
        self.assertIn(f"{KEY} is empty", why)
        gone = seen({**replaced, KEY: UNREADABLE}, missing=[KEY])
        self.assertIn(f"{KEY} is missing; put it back", self.assert_standing(FileStatus.UNFIT, gone, replaced=replaced))
        nothing = {**replaced, MANIFEST: UNREADABLE}
        self.assert_standing(FileStatus.RENEWED, seen({**nothing, KEY: "k2"}, missing=[MANIFEST]), replaced=nothing)

    def test_restless(self) -> None:
        """What changed between two looks is named, also when it came or went, or lies beside."""
        self.assertIn(f"{MODULE} keeps changing", restless(seen(), seen({MODULE: "h2"})))
        self.assertIn("/c/new.py keeps changing", restless(seen(), seen({"/c/new.py": "n"})))
        self.assertIn("(and 1 more) keeps changing", restless(seen({KEY: "k2"}), seen({MODULE: "h2"})))
        self.assertIn("what the manifest needs keeps changing", restless(seen(), seen(empty=[MODULE])))

    @given(
        st.dictionaries(st.sampled_from(sorted(LIVE)), st.sampled_from(("x", "y", UNREADABLE)), max_size=4),
        st.sets(st.sampled_from(sorted(LIVE))),
        st.sets(st.sampled_from(("/c/new.py", RULE))),
    )
    def test_never_half(self, changes: dict[str, str], empty: set[str], newcomers: set[str]) -> None:
        """Whatever changes, no half of a file is a change; and what is unfit has something that cannot be read."""
        look = seen(changes, empty=empty & changes.keys(), newcomers=newcomers)
        status = classify(look, watched()).status
        if changes.get(MANIFEST) == UNREADABLE or look.empty:
            self.assertIs(status, FileStatus.UNFIT)
        elif status is FileStatus.UNFIT:
            self.assertEqual(set(changes.values()), {UNREADABLE})
        self.assertEqual(status is FileStatus.LIVE, not changes and not newcomers - LIVE.keys())


class OutcomeTests(SynchronousTestCase):
    def outcome(self, status: str = ERROR, stage: str | None = None, timed_out: bool = False) -> ReloadOutcome:
        problems = (Problem(file="harn.toml", message="wrong"),) if status == ERROR else ()
        return reload_outcome(
            ReloadReport(
                status=status,
                source="file_watch",
                actor="watch",
                generation=1,
                digest="",
                stage=stage,
                problems=problems,
                timed_out=timed_out,
            )
        )

    def test_outcomes(self) -> None:
        """A problem of the author, or a reload that needs confirmation, is refused; a passing one is tried again."""
        self.assertIs(self.outcome(OK), ReloadOutcome.ADOPTED)
        self.assertIs(self.outcome(NEEDS_CONFIRMATION), ReloadOutcome.REFUSED)
        self.assertIs(self.outcome(UNSETTLED), ReloadOutcome.TRY_AGAIN)
        expected = [ReloadOutcome.REFUSED] * 3 + [ReloadOutcome.TRY_AGAIN] * 3
        self.assertEqual([self.outcome(stage=stage) for stage in STAGES], expected)
        self.assertEqual({self.outcome(stage=stage, timed_out=True) for stage in STAGES}, {ReloadOutcome.TRY_AGAIN})
