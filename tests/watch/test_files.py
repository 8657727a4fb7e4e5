"""The watched files: which they are, a look at them, and its classification."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.model.problem import Problem
from harn.model.references import FunctionReference
from harn.reload.generation import Pin
from harn.reload.inputs import current_digests
from harn.reload.report import ERROR, NEEDS_CONFIRMATION, OK, STAGES, UNSETTLED, ReloadReport
from harn.vm.bundle import Module, bundle_files, make_bundle
from harn.vm.sources import read_bundle
from harn.watch import files
from harn.watch.files import (
    MOST_LINKS,
    UNREADABLE,
    Digests,
    FileStatus,
    ReloadOutcome,
    Seen,
    Watched,
    classify,
    find_newcomers,
    link_chain,
    look,
    reload_outcome,
    restless,
    sources_below,
)

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


class FolderCase(SynchronousTestCase):
    """A folder of its own."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        self.root.mkdir(parents=True)
        self.manifest = str(self.root / "harn.toml")
        self.server: Any = self

    def write(self, name: str, text: str = "") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def read(self, wanted: Iterable[str]) -> Digests:
        return current_digests(frozenset(wanted), frozenset(wanted), b"")


class LinkChainTests(FolderCase):
    def test_plain_file(self) -> None:
        """A file that no link leads to is its own only name, there or not."""
        self.assertEqual(link_chain(str(self.root / "a")), {str(self.root / "a")})

    def test_links(self) -> None:
        """Every link on the way is a name, relative or absolute, of the file or of a directory."""
        self.write("v1/a")
        (self.root / "data").symlink_to("v1")
        (self.root / "b").symlink_to("data/a")
        (self.root / "c").symlink_to(self.root / "b")
        expected = {str(self.root / name) for name in ("c", "b", "data", "data/a", "v1/a")}
        self.assertEqual(link_chain(str(self.root / "c")), expected)

    def test_loop(self) -> None:
        """Links that lead to each other end."""
        (self.root / "a").symlink_to("b")
        (self.root / "b").symlink_to("a")
        self.assertEqual(link_chain(str(self.root / "a")), {str(self.root / "a"), str(self.root / "b")})

    def test_long_chain(self) -> None:
        """A chain that is longer than the system follows is not followed to its end."""
        for index in range(2 * MOST_LINKS):
            (self.root / f"l{index}").symlink_to(f"l{index + 1}")
        self.assertLessEqual(len(link_chain(str(self.root / "l0"))), MOST_LINKS + 1)

    @given(st.lists(st.sampled_from(("..", ".", "a", "b", "c", "a/b", "../c/.")), min_size=1, max_size=4))
    def test_any_links(self, targets: list[str]) -> None:
        """Whatever links say, the chain ends, and what a name resolves to is in it unless the links are a loop."""
        root = Path(self.mktemp()).resolve()
        root.mkdir(parents=True)
        for name, target in zip("abcd", targets, strict=False):
            (root / name).symlink_to(target)
        chain = link_chain(str(root / "a" / "x"))
        self.assertIn(str(root / "a" / "x"), chain)
        try:
            resolved = (root / "a").resolve(strict=True)
        except (OSError, RuntimeError):
            return
        self.assertIn(str(resolved / "x"), chain)


class ModulesBelowTests(FolderCase):
    def found(self) -> set[str]:
        return {str(Path(path).relative_to(self.root)) for path in sources_below(self.manifest)}

    def test_sources_below(self) -> None:
        """Sources are found so deep and no deeper, but none that is hidden, foreign or without a name."""
        names = (
            "a.py",
            "x/b.toml",
            "x/y/c.py",
            "x/y/z/d.py",
            "x/y/z/w/e.py",
            ".h/f.py",
            "venv/g.py",
            "__pycache__/h.py",
        )
        for name in (*names, "venv/pyvenv.cfg", "x/no.txt", ".#a.py", ".b.toml", "two-words.py"):
            self.write(name)
        self.assertEqual(self.found(), set(names[:4]))
        self.assertEqual(sources_below(str(self.root / "none" / "harn.toml")), set())

    def test_limits(self) -> None:
        """A tree of very many directories, or modules, is not searched to its end."""
        self.patch(files, "MOST_DIRECTORIES", 3)
        for index in range(9):
            self.write(f"d{index}/m.py")
        self.assertEqual(len(self.found()), 2)
        self.patch(files, "MOST_DIRECTORIES", 1000)
        self.patch(files, "MOST_MODULES", 4)
        self.assertEqual(len(self.found()), 4)


class NewcomerTests(FolderCase):
    """Files that the live generation does not have yet, but looks for."""

    def setUp(self) -> None:
        super().setUp()
        self.write("handlers.py", "import late, requests.adapters\nfrom pack import inner\n")
        self.write("rules/one.py")
        self.write("elsewhere/out.py")

    def watched(self) -> Watched:
        include, exports = ("rules/*.py",), {"out": "elsewhere/out.py"}
        references = {FunctionReference("handlers", "f"), FunctionReference("out", "f")}
        bundle, problems = read_bundle(self.root, exports, references, include)
        self.assertEqual(problems, [])
        files = bundle_files(bundle)
        return Watched(
            paths=frozenset((*files, self.manifest)),
            live=files,
            manifest=self.manifest,
            bundle=bundle,
            exports=exports,
            include=include,
        )

    def test_newcomers(self) -> None:
        """Matches of a pattern, imports that become local, and files that come in front of live ones are newcomers."""
        watched = self.watched()
        self.assertEqual(find_newcomers(watched), set())
        self.assertEqual(watched.included(), {str(self.root / "rules/one.py")})
        self.write("unrelated.py")
        self.write("rules/notes.txt")
        self.assertEqual(find_newcomers(watched), set())
        expected = {"rules/two.py", "late.py", "requests/__init__.py", "pack/inner.py", "elsewhere/out/__init__.py"}
        for name in expected:
            self.write(name)
        expected -= {"elsewhere/out/__init__.py"}  # [exports] says which file it is
        self.assertEqual(find_newcomers(watched), {str(self.root / name) for name in expected})

    def test_what_is_read_is_no_newcomer(self) -> None:
        """After a reading of them, newcomers do not count as new any more."""
        self.write("late.py", "import pack.inner\n")
        self.write("pack/__init__.py")
        self.write("pack/inner/__init__.py")
        self.write("rules/two.py")
        self.assertEqual(find_newcomers(self.watched()), set())

    def test_files_of_the_manifest(self) -> None:
        """A file that the live manifest would include is a newcomer; one that it includes may be removed freely."""
        self.write("harn.toml", "x")
        one = self.write("triggers.d/one.toml", "x")
        live = self.read((self.manifest, one))
        watched = Watched(
            paths=frozenset(live),
            live=live,
            manifest=self.manifest,
            parts=("triggers.d/*.toml",),
            included_parts=frozenset((one,)),
        )
        self.assertEqual(classify(look(watched, self.server), watched).status, FileStatus.LIVE)
        two = self.write("triggers.d/two.toml", "x")
        self.assertEqual(find_newcomers(watched), {two})
        self.assertEqual(classify(look(watched, self.server), watched).status, FileStatus.CHANGED)
        Path(two).unlink()
        Path(one).unlink()
        self.assertEqual(classify(look(watched, self.server), watched).status, FileStatus.CHANGED)
        self.assertIn(one, watched.plain())

    def test_nothing_live(self) -> None:
        """Without a live generation there is nothing to know of newcomers."""
        watched = replace(self.watched(), bundle=None)
        self.write("late.py")
        self.assertEqual((find_newcomers(watched), watched.included()), (set(), set()))


class LookTests(FolderCase):
    def test_look(self) -> None:
        """A look separates changed, empty and missing files, and reads other modules only then."""
        names = ("harn.toml", "a.py", "b.py", "c.py")
        wanted = frozenset(self.write(name, "x") for name in names)
        watched = Watched(paths=wanted, live=self.read(wanted), manifest=self.manifest)
        beside = self.write("beside.py", "y")
        seen = look(watched, self.server)
        self.assertEqual((seen.content, seen.beside, seen.empty, seen.missing), (watched.live, {}, set(), set()))
        self.write("a.py")
        (self.root / "b.py").unlink()
        seen = look(watched, self.server)
        self.assertEqual(seen.beside, self.read([beside]))
        self.assertEqual(seen.empty, {str(self.root / "a.py")})
        self.assertEqual(seen.missing, {str(self.root / "b.py")})
        self.assertEqual(look(watched, self.server), seen)

    def test_empty_for_a_moment(self) -> None:
        """A file that was read while it was truncated is empty, though it is no longer when its size is asked for."""
        path = self.write("a.py", "x")
        self.write("harn.toml", "x")
        watched = Watched(paths=frozenset((path, self.manifest)), live={path: "before"}, manifest=self.manifest)

        def read(wanted: Iterable[str]) -> Digests:
            self.write("a.py", "")
            content = self.read(wanted)
            self.write("a.py", "x")
            return content

        server: Any = SimpleNamespace(read=read)
        self.assertEqual(look(watched, server).empty, {path})

    def test_no_files(self) -> None:
        """A path that is a directory, a pipe, a socket or a loop of links now is unreadable, and is not waited for."""
        names = ("directory.py", "pipe.py", "socket.py", "loop.py")
        wanted = frozenset(str(self.root / name) for name in (*names, "harn.toml"))
        live = dict.fromkeys(wanted, "sha256:before")
        (self.root / "directory.py").mkdir()
        os.mkfifo(self.root / "pipe.py")
        with socket.socket(socket.AF_UNIX) as sock:
            here = os.open(self.root, os.O_RDONLY)
            self.addCleanup(os.close, here)
            sock.bind(f"/proc/self/fd/{here}/socket.py")  # a socket's path may not be long
        (self.root / "loop.py").symlink_to("loop.py")
        seen = look(Watched(paths=wanted, live=live, manifest=self.manifest), self.server)
        self.assertEqual(set(seen.content.values()), {UNREADABLE})
        self.assertEqual((seen.missing, seen.empty), ({self.manifest}, set()))
