"""Reading local modules: what is found, followed, refused, and how little an unchanged bundle costs."""

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.problem import Problem
from harn.model.references import parse_function_reference
from harn.vm import sources
from harn.vm.bundle import bundle_files, changed_modules, decode_bundle, encode_bundle, import_names, source_digest
from harn.vm.sources import find_modules, read_bundle


class SourcesCase(SynchronousTestCase):
    """A directory with a manifest's modules."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)

    def write(self, **files: Any) -> None:
        """Write modules: ``a__b`` is ``a/b.py``, ``a__INIT`` is ``a/__init__.py``."""
        for name, text in files.items():
            self.write_path(name.replace("__", "/").replace("INIT", "__init__") + ".py", text)

    def write_path(self, relative: Any, text: Any) -> None:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode("utf-8"))

    def read(self, *references: Any, exports: Any = None, include: Any = (), previous: Any = None) -> Any:
        return read_bundle(
            self.root, exports or {}, {parse_function_reference(each) for each in references}, include, previous
        )

    def good(self, *references: Any, **options: Any) -> Any:
        bundle, problems = self.read(*references, **options)
        self.assertEqual(problems, [])
        return bundle

    def bad(self, *references: Any, **options: Any) -> Any:
        problems = self.read(*references, **options)[1]
        self.assertEqual(len(problems), 1, problems)
        return problems[0]


class FollowingTests(SourcesCase):
    """From a function to everything that its module imports."""

    def test_every_form_of_import(self) -> None:
        """Imports of each form, at each place in a source, are followed."""
        self.write(
            handlers="""
                from __future__ import annotations
                import one
                from pack import two, NAME
                import pack.sub.three as three
                from typing import TYPE_CHECKING
                import importlib, json, twisted
                if TYPE_CHECKING:
                    import four
                def f(event):
                    from five import x
                    importlib.import_module("six")
                    __import__("seven")
                    try:
                        import absent
                    except ImportError:
                        import eight
            """,
            pack__INIT="__all__ = ['listed']\n",
            pack__two="from .sub import three\nfrom . import nine\nfrom .. import beyond\n",
            pack__listed="",
            pack__nine="",
            pack__unused="",
            pack__sub__three="from ..ten import *\n",
            pack__ten="import handlers\n",
            **dict.fromkeys(["one", "four", "five", "six", "seven", "eight", "unused"], ""),
        )
        bundle = self.good("handlers:f")
        top = {"handlers", "one", "four", "five", "six", "seven", "eight"}
        inner = {"pack", "pack.two", "pack.listed", "pack.nine", "pack.sub.three", "pack.ten"}
        self.assertEqual(set(bundle.modules), top | inner)
        self.assertEqual(bundle.modules["pack.nine"].imports, {"pack"})
        self.assertEqual(bundle.modules["pack.two"].imports, {"pack", "pack.sub.three", "pack.nine"})
        self.assertTrue(bundle.modules["pack"].is_package)
        self.assertEqual(bundle.modules["one"].path, str(self.root / "one.py"))

    def test_exports(self) -> None:
        """An exported file has the name it is exported by; what lies beside it is local too, after the manifest's."""
        self.write(src__lib__entry="import helper, both\n", src__lib__helper="", src__lib__both="", both="")
        bundle = self.good("handlers:f", exports={"handlers": "src/lib/entry.py"})
        self.assertEqual(
            {name: os.path.relpath(module.path, self.root) for name, module in bundle.modules.items()},
            {"handlers": "src/lib/entry.py", "helper": "src/lib/helper.py", "both": "both.py"},
        )

    def test_exported_package(self) -> None:
        """A directory with ``__init__.py`` can be exported, and its modules lie in it."""
        self.write(src__code__INIT="from . import more\n", src__code__more="")
        bundle = self.good("app:f", "app.more:f", exports={"app": "src/code"})
        self.assertEqual(set(bundle.modules), {"app", "app.more"})

    def test_packages_of_references(self) -> None:
        """The packages that a module lies in belong to it."""
        self.write(a__INIT="import rules\n", a__b__INIT="", a__b__c="", rules="")
        self.assertEqual(set(self.good("a.b.c:f").modules), {"a", "a.b", "a.b.c", "rules"})

    def test_package_before_module(self) -> None:
        """Of a package and a module of one name the package wins, as in Python; data directories are not modules."""
        self.write(a__INIT="", a="", handlers="import a, yaml\n")
        self.write_path("yaml/data.txt", "")
        bundle = self.good("handlers:f")
        self.assertTrue(bundle.modules["a"].is_package)
        self.assertEqual(set(bundle.modules), {"a", "handlers"})

    def test_include(self) -> None:
        """Patterns add modules by their path; these count in every module's digest."""
        self.write(handlers="", rules__one="import deep\n", rules__two="", deep="")
        plain = self.good("handlers:f")
        bundle = self.good("handlers:f", include=["rules/*.py"])
        self.assertEqual(set(bundle.modules), {"handlers", "rules.one", "rules.two", "deep"})
        self.assertEqual(bundle.included, {"rules.one", "rules.two"})
        before = source_digest(bundle, "handlers")
        self.assertNotEqual(before, source_digest(plain, "handlers"))
        self.write(deep="x = 1\n")
        self.assertNotEqual(before, source_digest(self.good("handlers:f", include=["rules/*.py"]), "handlers"))

    def test_finding(self) -> None:
        """Finding names the files that reading takes: new ones too, and those that come in front of others."""
        include, exports = ["./rules/*.py"], {"out": "elsewhere/out.py"}
        self.write(handlers="import late, os, missing.deep\n", rules__one="", elsewhere__out="import beside\n")
        self.write(elsewhere__beside="")
        bundle = self.good("handlers:f", "out:f", include=include, exports=exports)
        names = {name for module in bundle.modules.values() for name in (module.name, *module.import_names)}

        def found() -> Any:
            return find_modules(self.root, exports, names, include)

        self.assertEqual(found(), set(bundle_files(bundle)))
        self.write(late="", missing__deep="", rules__two="", os="", unrelated="")
        self.write_path("rules/not-a-name.py", "")
        news = {"late.py", "missing/deep.py", "rules/two.py", "rules/not-a-name.py"}
        self.assertEqual(found() - set(bundle_files(bundle)), {str(self.root / each) for each in news})
        self.write(handlers__INIT="")
        self.assertIn(str(self.root / "handlers/__init__.py"), found())
        self.assertNotIn(str(self.root / "handlers.py"), found())
        self.assertEqual(find_modules(self.root, {}, ["os"], ["../*.py", "none/*.py"]), set())

    def test_links(self) -> None:
        """Links are followed, and a module's path is the link's."""
        self.write(data1__handlers="x = 1\n")
        os.symlink("data1", self.root / "current")
        os.symlink("current/handlers.py", self.root / "handlers.py")
        module = self.good("handlers:f").modules["handlers"]
        self.assertEqual((module.path, module.source), (str(self.root / "handlers.py"), b"x = 1\n"))

    def test_standard_library_is_not_shadowed(self) -> None:
        """A local file that is never imported may have any name."""
        self.write(handlers="import json\n", calendar="")
        self.assertEqual(set(self.good("handlers:f").modules), {"handlers"})


class ProblemTests(SourcesCase):
    """What cannot be read."""

    def test_missing(self) -> None:
        """A missing module is a problem of the function that names it, with the nearest name."""
        self.write(handlers="")
        problem = self.bad("handler:f")
        self.assertEqual(str(problem.reference), "handler:f")
        self.assertIn("did you mean 'handlers'", problem.hint)
        self.assertEqual(type(problem.unlocated()), Problem)
        self.assertEqual(str(problem.unlocated()), str(problem))

    def test_all_at_once(self) -> None:
        """Every problem is reported, in one reading, and sound modules are read."""
        self.write(good="", broken="x = (\n", handlers="import broken\nimport binary\n")
        self.write_path("binary.py", b"x = '\xff'\n")
        bundle, problems = self.read("good:f", "handlers:f", "absent:f", include=["none/*.py"])
        self.assertEqual(set(bundle.modules), {"good", "handlers"})
        said = "\n".join(str(problem) for problem in problems)
        self.assertEqual(len(problems), 4, said)
        self.assertRegex(said, r"broken\.py:1: SyntaxError: '\(' was never closed")
        self.assertRegex(said, r"binary\.py.*utf-8")
        self.assertRegex(said, r"no module 'absent'")
        self.assertRegex(said, r"'none/\*\.py' matches no Python file")

    def test_encodings(self) -> None:
        """A source may declare its encoding; one that is unknown is a problem."""
        self.write_path("latin.py", "# coding: latin-1\nx = 'ä'\n".encode("latin-1"))
        self.good("latin:f")
        self.write_path("martian.py", b"# coding: martian\n")
        self.assertIn("unknown encoding: martian", str(self.bad("martian:f")))
        self.write_path("null.py", b"x = 1\0\n")
        self.assertIn("null", str(self.bad("null:f")))

    def test_reserved_names(self) -> None:
        """Names of Python's and harn's own modules cannot be local, however they are asked for."""
        self.write(json="", secrets="", handlers="import secrets\n", fine="")
        self.assertIn("belongs to Python", str(self.bad("json:f")))
        self.assertIn("belongs to Python", str(self.bad("harn.evil:f")))
        self.assertRegex(str(self.bad("handlers:f")), r"handlers\.py: imports 'secrets'.*another name")
        self.assertIn("belongs to Python", str(self.bad("fine:f", exports={"asyncio": "fine.py"})))

    def test_escapes(self) -> None:
        """Exports and patterns that leave the manifest's directory are refused."""
        self.write(fine="")
        (self.root.parent / "outside.py").write_text("")
        for path in ("../outside.py", str(self.root.parent / "outside.py"), "a/../../outside.py", ".."):
            self.assertIn("leaves the manifest's directory", str(self.bad("fine:f", exports={"out": path})))
        self.assertIn("leaves the manifest's directory", str(self.bad("fine:f", include=["../*.py"])))

    def test_odd_files(self) -> None:
        """Directories, pipes, unreadable and huge files are problems; none is waited for."""
        (self.root / "folder.py").mkdir()
        self.assertIn("got a directory", str(self.bad("folder:f")))
        os.mkfifo(self.root / "pipe.py")
        self.assertIn("got a special file", str(self.bad("pipe:f")))
        os.symlink("nowhere", self.root / "dangling.py")
        self.assertIn("cannot be read", str(self.bad("dangling:f")))
        self.patch(sources, "LARGEST_FILE", 10)
        self.write(big="x = 1234567890\n")
        self.assertIn("more than 10 bytes", str(self.bad("big:f")))
        self.assertIn("there is no file", str(self.bad(exports={"absent": "absent.py"})))

    def test_deep_nesting(self) -> None:
        """A source that nests beyond the parser's limits is a problem."""
        self.write(deep="x = " + "(" * 5000 + ")" * 5000 + "\n")
        self.assertIn("deep.py", str(self.bad("deep:f")))

    def test_names_that_cannot_be_imported(self) -> None:
        """A pattern that matches a file which no import could name is a problem."""
        self.write_path("rules/my-rule.py", "")
        self.assertIn("cannot be imported", str(self.bad(include=["rules/*.py"])))


class RereadingTests(SourcesCase):
    """Reading again, and comparing."""

    def setUp(self) -> None:
        super().setUp()
        self.write(handlers="import a\n", other="import c\n", a="import b\n", b="import a\n", c="")
        self.bundle = self.good("handlers:f", "other:f")

    def again(self) -> Any:
        return self.good("handlers:f", "other:f", previous=self.bundle)

    def test_unchanged(self) -> None:
        """An unchanged reading gives the very bundle it was given, and parses nothing."""
        self.patch(sources, "import_names", None)
        self.assertIs(self.again(), self.bundle)

    def test_equal_size_edit(self) -> None:
        """An edit of the same size in the same second is seen, and only that file is parsed."""
        parsed = []
        self.patch(sources, "import_names", lambda *a, **k: parsed.append(a[2]) or import_names(*a, **k))
        status = os.stat(self.root / "c.py")
        self.write(c="x = 1\n")
        os.utime(self.root / "c.py", ns=(status.st_atime_ns, status.st_mtime_ns))
        bundle = self.again()
        self.assertEqual(parsed, ["c"])
        self.assertEqual(changed_modules(self.bundle, bundle), (str(self.root / "c.py"),))
        self.assertIs(bundle.modules["a"], self.bundle.modules["a"])

    def test_new_file_behind_an_old_import(self) -> None:
        """A file that appears where an unchanged module imports from becomes local."""
        self.write(a="import late\n")
        self.bundle = self.again()
        self.write(late="")
        self.assertEqual(self.again().modules["a"].imports, {"late"})

    def test_digest_covers_all_that_is_imported(self) -> None:
        """A module's digest changes with what it imports, however deep, and with nothing else; cycles end."""
        before = {name: source_digest(self.bundle, name) for name in self.bundle.modules}
        self.write(b="import a\nx = 1\n")
        bundle = self.again()
        changed = {name for name in before if source_digest(bundle, name) != before[name]}
        self.assertEqual(changed, {"handlers", "a", "b"})
        self.assertRaises(KeyError, source_digest, bundle, "absent")

    def test_bundle_id(self) -> None:
        """Equal content has one id; content, names and paths are in it."""
        self.assertEqual(self.good("handlers:f", "other:f").bundle_id, self.bundle.bundle_id)
        self.write(c="x = 1\n")
        self.assertNotEqual(self.again().bundle_id, self.bundle.bundle_id)

    def test_stored(self) -> None:
        """A bundle comes back from the store as it was."""
        decoded = decode_bundle(encode_bundle(self.bundle))
        self.assertEqual(decoded, self.bundle)
        self.assertEqual(source_digest(decoded, "handlers"), source_digest(self.bundle, "handlers"))
        self.assertEqual(encode_bundle(decoded), encode_bundle(self.bundle))
        self.assertRaises(ValueError, decode_bundle, b"\x91\x01")

    def test_files(self) -> None:
        """Files are named with their digests."""
        files = bundle_files(self.bundle)
        self.assertEqual(set(files), {str(self.root / f"{name}.py") for name in self.bundle.modules})
        self.assertTrue(all(digest.startswith("sha256:") for digest in files.values()))


class MentionsTests(SynchronousTestCase):
    """The pure reading of one source."""

    def test_relative(self) -> None:
        """Relative imports are made absolute, from a module and from a package; those that climb out are dropped."""
        source = b"from . import x\nfrom .y import z\nfrom ..u import v\nfrom .... import w\n"
        expected = ("a", "a.b", "a.b.x", "a.b.y", "a.b.y.z", "a.u", "a.u.v")
        self.assertEqual(import_names(source, "p", "a.b.c", is_package=False), expected)
        self.assertIn("a.b.c.x", import_names(source, "p", "a.b.c", is_package=True))

    def test_dynamic(self) -> None:
        """Only plain texts are read from calls."""
        source = (
            b"import_module(name)\nimportlib.import_module('a.b')\n__import__('not a name')\nimport_module('.c', 'p')\n"
        )
        self.assertEqual(import_names(source, "p", "m.n", is_package=False), ("a", "a.b", "m", "m.c"))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, source: Any) -> None:
        """Whatever the bytes, there is a tuple of names or one of the documented errors."""
        try:
            found = import_names(source, "p", "m", is_package=False)
        except (SyntaxError, ValueError, RecursionError):
            return
        self.assertTrue(all(isinstance(name, str) for name in found))
