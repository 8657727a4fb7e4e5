"""Which names matter, and what is seen behind them. Real files."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.references import FunctionReference
from harn.reload.inputs import current_digests
from harn.vm.bundle import bundle_files
from harn.vm.sources import read_bundle
from harn.watch import paths
from harn.watch.model import UNREADABLE, Digests, Watched
from harn.watch.paths import MOST_LINKS, find_newcomers, link_chain, look, modules_below


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
        return {str(Path(path).relative_to(self.root)) for path in modules_below(self.manifest)}

    def test_modules_below(self) -> None:
        """Modules are found so deep and no deeper, but none that is hidden, foreign or without a name."""
        names = ("a.py", "x/b.py", "x/y/c.py", "x/y/z/d.py", "x/y/z/w/e.py", ".h/f.py", "venv/g.py", "__pycache__/h.py")
        for name in (*names, "venv/pyvenv.cfg", "x/no.txt", ".#a.py", "two-words.py"):
            self.write(name)
        self.assertEqual(self.found(), set(names[:4]))
        self.assertEqual(modules_below(str(self.root / "none" / "harn.toml")), set())

    def test_limits(self) -> None:
        """A tree of very many directories, or modules, is not searched to its end."""
        self.patch(paths, "MOST_DIRECTORIES", 3)
        for index in range(9):
            self.write(f"d{index}/m.py")
        self.assertEqual(len(self.found()), 2)
        self.patch(paths, "MOST_DIRECTORIES", 1000)
        self.patch(paths, "MOST_MODULES", 4)
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

    def test_nothing_live(self) -> None:
        """Without a live generation there is nothing to know of newcomers."""
        watched = evolve(self.watched(), bundle=None)
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
