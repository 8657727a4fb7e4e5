"""Local code that is found in unusual ways: it is in the bundle, or refused with a hint; and data beside modules."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.model.references import parse_function_reference
from harn.vm.child.functions import Functions, Unusable
from harn.vm.frames import Source
from harn.vm.imports import Scope
from harn.vm.local_code import Locality, UnreadModule
from harn.vm.sources import find_modules, read_bundle
from tests.vm.examples import Unobserved
from tests.vm.test_sources import SourcesCase

FUNCTION = "def f(event): pass\n"


class LocalityTests(SynchronousTestCase):
    """What is local, and what was installed."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.locality = Locality(str(self.root))

    def file(self, name: Any) -> Any:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return str(path)

    def test_below_the_root(self) -> None:
        """What lies below the root is local, also through links; nothing else is, and below no root nothing."""
        inside = self.file("lib/deep/rules.py")
        (self.root.parent / "link").symlink_to(self.root)
        for path in (inside, str(self.root.parent / "link/lib/deep/rules.py")):
            self.assertTrue(self.locality.is_local(path), path)
        linked = Locality(str(self.root.parent / "link"))
        self.assertTrue(linked.is_local(inside))
        self.assertEqual(linked.relative(inside), "lib/deep/rules.py")
        for path in (str(self.root), f"{self.root}-other/a.py", "/usr/lib/x.py", ""):
            self.assertFalse(self.locality.is_local(path), path)
        self.assertFalse(Locality("").is_local(inside))

    def test_installed(self) -> None:
        """A virtual environment, a folder of site-packages, and what ``pip install --target`` made are not local."""
        self.file("env/pyvenv.cfg")
        self.file("vendor/yaml-6.0.dist-info/METADATA")
        for name in (
            "env/lib/python3/site-packages/a.py",
            "env/bin/a.py",
            "x/site-packages/a/b.py",
            "vendor/yaml/a.py",
        ):
            self.assertFalse(self.locality.is_local(self.file(name)), name)
        self.assertTrue(self.locality.is_local(self.file("src/pkg.egg-info/a.py")))

    def test_python_itself(self) -> None:
        """A root above Python's own directories does not make these local; a root below them stays local."""
        self.assertFalse(Locality("/").is_local(importlib.__file__))
        inside = Path(sys.prefix) / "srv" / "harn"
        self.assertTrue(Locality(str(inside)).is_local(str(inside / "lib" / "a.py")))

    def test_search_path(self) -> None:
        """Of Python's search path the local directories below the root count, in order."""
        self.file("src/a.py")
        self.file("env/pyvenv.cfg")
        self.file("env/lib/site-packages/a.py")
        entries = [
            "",
            str(self.root / "src"),
            str(self.root / "none"),
            "/usr",
            str(self.root / "env/lib/site-packages"),
        ]
        self.assertEqual(self.locality.search_path(entries), [str(self.root / "src")])


class SearchPathTests(SourcesCase):
    """A directory below the manifest's is on ``PYTHONPATH``, or in a ``.pth`` file."""

    def test_in_the_bundle(self) -> None:
        """What is imported from there is read with the manifest, packages without ``__init__`` as well."""
        self.write(handlers="import rules\nfrom ns import part\n", lib__rules="V = 1\n", lib__ns__part="")
        self.patch(sys, "path", [*sys.path, str(self.root / "lib")])
        bundle, problems = read_bundle(self.root, {}, {parse_function_reference("handlers:f")})
        self.assertEqual(problems, [])
        self.assertEqual(set(bundle.modules), {"handlers", "rules", "ns.part"})
        self.assertEqual(bundle.root, str(self.root))
        self.assertEqual(find_modules(self.root, {}, ["rules"], []), {str(self.root / "lib/rules.py")})

    def test_next_to_the_manifest_first(self) -> None:
        """What lies next to the manifest goes before."""
        self.write(handlers="import rules\n", rules="V = 0\n", lib__rules="V = 1\n")
        self.patch(sys, "path", [str(self.root / "lib"), *sys.path])
        self.assertEqual(self.good("handlers:f").modules["rules"].source, b"V = 0\n")


class GuardCase(SourcesCase):
    """Modules of a bundle, imported in this process as in an interpreter of their own."""

    prefix = ""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sys, "path", [*sys.path])
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def functions(self, *references: Any, exports: Any = None, include: Any = ()) -> Any:
        bundle, problems = read_bundle(
            self.root, exports or {}, {parse_function_reference(each) for each in references}, include
        )
        self.assertEqual(problems, [])
        sources = [Source(each.name, each.path, each.source, each.is_package) for each in bundle.modules.values()]
        self.scope = scope = Scope(sources, self.prefix, bundle.root)
        scope.install()
        self.addCleanup(lambda: scope in sys.meta_path and scope.remove())
        return Functions(self.scope, Unobserved())

    def refused(self, *references: Any, **more: Any) -> Any:
        functions = self.functions(*references, **more)
        return self.assertRaises(Unusable, functions.get, references[0])


class GuardTests(GuardCase):
    """What an interpreter refuses to import."""

    def test_search_path_of_the_code(self) -> None:
        """A module that the code itself put onto the search path is refused: named, with its file and what to do."""
        self.write(
            handlers="import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
            "import harn_rules\ndef f(event): pass\n",
            lib__harn_rules="V = 1\n",
        )
        flaw = self.refused("handlers:f")
        self.assertIn(f"module 'harn_rules' ({self.root}/lib/harn_rules.py) lies below", flaw.message)
        self.assertIn('name it in [exports]: harn_rules = "lib/harn_rules.py"', flaw.hint)
        self.assertEqual((flaw.file, flaw.line), (str(self.root / "handlers.py"), 3))

    def test_hint_is_right(self) -> None:
        """Who does what the hint says has the module in the bundle."""
        self.test_search_path_of_the_code()
        functions = self.functions("handlers:f", exports={"harn_rules": "lib/harn_rules.py"})
        functions.get("handlers:f")
        self.assertEqual(sys.modules["harn_rules"].V, 1)

    def test_computed_names(self) -> None:
        """A name that is only known when the code runs; below the manifest, ``include`` is the place for it."""
        self.write(
            handlers="import importlib\nimportlib.import_module('harn_' + 'plug.one')\ndef f(event): pass\n",
            harn_plug__INIT="",
            harn_plug__one="",
        )
        sys.path.insert(0, str(self.root))
        flaw = self.refused("handlers:f")
        self.assertIn('add "harn_plug/__init__.py" to include in [orchestrator.vm]', flaw.hint)
        self.functions("handlers:f", include=["harn_plug/*.py"]).get("handlers:f")

    def test_beside_and_not_found(self) -> None:
        """A module that lies beside the manifest and that no import would find is refused with the same hint."""
        self.write(handlers="__import__('harn_' + 'beside')\ndef f(event): pass\n", harn_beside="")
        self.assertIn('add "harn_beside.py" to include', self.refused("handlers:f").hint)

    def test_hidden_by_the_code(self) -> None:
        """Code that catches the error does not hide it."""
        self.write(
            handlers="import sys\nsys.path.insert(0, __file__.replace('handlers.py', 'lib'))\n"
            "try:\n    import harn_rules\nexcept ImportError:\n    pass\ndef f(event): pass\n",
            lib__harn_rules="",
        )
        self.assertIn("harn_rules", self.refused("handlers:f").message)

    def test_past_all_finders(self) -> None:
        """A file that was loaded by its path, and registered, is seen afterwards."""
        self.write(
            handlers="import sys, importlib.util as u\n"
            "s = u.spec_from_file_location('harn_odd', __file__.replace('handlers', 'lib/odd'))\n"
            "m = sys.modules['harn_odd'] = u.module_from_spec(s)\ns.loader.exec_module(m)\ndef f(event): pass\n",
            lib__odd="",
        )
        self.assertIn("harn_odd", self.refused("handlers:f").message)

    def test_later(self) -> None:
        """While a handler runs the import fails in it, with the same words."""
        self.write(
            handlers="import sys\ndef f(event):\n    sys.path.insert(0, event)\n    import harn_rules\n",
            lib__harn_rules="",
        )
        call = self.functions("handlers:f").get("handlers:f").call
        error = self.assertRaises(UnreadModule, call, str(self.root / "lib"))
        self.assertIn("name it in [exports]", str(error))

    def test_compiled(self) -> None:
        """A compiled module cannot be read as source: it is to be installed."""
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        self.write_path(f"lib/harn_fast{suffix}", b"")
        self.write(handlers="import sys\nsys.path.insert(0, __file__[:-11] + 'lib')\nimport harn_fast\n")
        self.assertIn("install it as a package", self.refused("handlers:f").hint)

    def test_installed_below(self) -> None:
        """What a virtual environment below the manifest holds is imported as usual."""
        self.write_path("env/pyvenv.cfg", "")
        self.write_path("env/lib/harn_yaml.py", "V = 2\n")
        self.write(handlers="import harn_yaml\ndef f(event): pass\n")
        sys.path.insert(0, str(self.root / "env/lib"))
        self.functions("handlers:f").get("handlers:f")
        self.assertEqual(sys.modules["harn_yaml"].V, 2)


class InlineGuardTests(GuardCase):
    """In the server's own process, where the finders are the server's, too."""

    prefix = "_harn_local_test"

    def test_refused_again_and_again(self) -> None:
        """A local module from disk is refused each time, though Python keeps it."""
        self.write(
            handlers="import sys\nsys.path.insert(0, __file__[:-11] + 'lib')\nimport harn_rules\ndef f(event): pass\n",
            lib__harn_rules="",
        )
        for _ in range(2):
            self.assertIn("name it in [exports]", self.refused("handlers:f").hint)
            self.scope.remove()
            sys.path.remove(f"{self.root}/lib")
        self.write(handlers="import importlib as i\ni.import_module('harn_' + 'rules')\ndef f(event): pass\n")
        self.assertIn("harn_rules", self.refused("handlers:f").message)


class DataTests(GuardCase):
    """Files beside local modules."""

    def test_found(self) -> None:
        """``importlib.resources``, ``pkgutil`` and ``__file__`` find them, as they are on disk at that moment."""
        self.write(
            harn_shop__INIT="def f(event): pass\n",
            harn_shop__sub__INIT="",
            harn_shop__plain="",
            harn_ns__mod="def f(event): pass\n",
        )
        for name in ("harn_shop/mail.txt", "harn_shop/sub/deep.txt", "harn_ns/note.txt"):
            self.write_path(name, f"hello from {name}\n")
        functions = self.functions("harn_shop:f", "harn_ns.mod:f", include=["harn_shop/**/*.py"])
        for reference in ("harn_shop:f", "harn_ns.mod:f"):
            functions.get(reference)
        files = importlib.resources.files
        self.assertEqual(files("harn_shop").joinpath("mail.txt").read_text(), "hello from harn_shop/mail.txt\n")
        self.assertEqual(files("harn_shop.sub").joinpath("deep.txt").read_text(), "hello from harn_shop/sub/deep.txt\n")
        self.assertEqual(files("harn_ns").joinpath("note.txt").read_text(), "hello from harn_ns/note.txt\n")
        self.assertEqual(pkgutil.get_data("harn_shop", "mail.txt"), b"hello from harn_shop/mail.txt\n")
        self.write_path("harn_shop/mail.txt", "new")
        self.assertEqual((Path(sys.modules["harn_shop"].__file__ or "").parent / "mail.txt").read_text(), "new")
        self.assertEqual(files("harn_shop").joinpath("mail.txt").read_bytes(), b"new")

    def test_loader(self) -> None:
        """A loader answers what tools ask one."""
        self.write(
            harn_shop__INIT="X = 1\n", harn_shop__plain="def f(event): pass\n", harn_ns__mod="def f(event): pass\n"
        )
        functions = self.functions("harn_shop.plain:f", "harn_ns.mod:f")
        functions.get("harn_shop.plain:f")
        functions.get("harn_ns.mod:f")
        loader: Any = sys.modules["harn_shop"].__loader__
        self.assertEqual(loader.get_source("harn_shop"), "X = 1\n")
        self.assertEqual(loader.get_filename("harn_shop"), str(self.root / "harn_shop/__init__.py"))
        self.assertTrue(loader.is_package("harn_shop"))
        self.assertEqual([each.name for each in pkgutil.iter_modules(sys.modules["harn_shop"].__path__)], ["plain"])
        plain: Any = sys.modules["harn_shop.plain"].__loader__
        self.assertIsNone(plain.get_resource_reader("harn_shop.plain"))
        space: Any = sys.modules["harn_ns"].__loader__
        self.assertRaises(ImportError, space.get_filename, "harn_ns")
        self.assertRaises(FileNotFoundError, loader.get_data, str(self.root / "none"))
