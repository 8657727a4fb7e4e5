"""What is installed: the wheel's contents, its metadata, and that twistd finds the plugin."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

import harn
from harn.tap import Options, makeService

SOURCE = Path(harn.__file__).parent.parent


class PluginTests(SynchronousTestCase):
    """``twistd harn-orchestrator``."""

    def test_twistd_lists_it(self) -> None:
        """Twisted's plugin system finds it, and it leads to our options and our service."""
        [plugin] = [each for each in getPlugins(IServiceMaker) if each.tapname == "harn-orchestrator"]
        verifyObject(IServiceMaker, plugin)
        verifyObject(IPlugin, plugin)
        self.assertIs(plugin.options, Options)
        self.assertIs(plugin.makeService, makeService)


class WheelTests(SynchronousTestCase):
    """The built wheel; built from a copy, so that nothing is left beside the source."""

    def setUp(self) -> None:
        if not (SOURCE / "setup.cfg").exists():
            raise SkipTest("the source is not here")

    def build(self) -> zipfile.ZipFile:
        """Build it, with the build system that is installed."""
        copy, out = Path(self.mktemp()), Path(self.mktemp())
        copy.mkdir()
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            if (SOURCE / name).exists():
                shutil.copy(SOURCE / name, copy)
        for name in ("harn", "twisted"):
            shutil.copytree(SOURCE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        program = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
        command = [sys.executable, "-c", program, str(out.resolve())]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        [wheel] = out.glob("*.whl")
        return zipfile.ZipFile(wheel)

    def test_contents(self) -> None:
        """Every module of harn is in it, the plugin too, and nothing that would shadow Twisted."""
        with self.build() as wheel:
            names = set(wheel.namelist())
            metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
            said = wheel.read(metadata).decode("utf-8")
            entry = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode("utf-8")
        modules = {str(path.relative_to(SOURCE)) for path in (SOURCE / "harn").rglob("*.py")}
        self.assertEqual(modules - names, set())
        console = {str(path.relative_to(SOURCE)) for path in (SOURCE / "harn" / "console").rglob("*.*")}
        self.assertGreater(len([name for name in console if name.endswith((".html", ".css", ".js", ".svg"))]), 10)
        self.assertEqual({name for name in console if not name.endswith(".pyc")} - names, set())
        self.assertEqual(
            {name for name in names if name.startswith("twisted/")}, {"twisted/plugins/harn_orchestrator.py"}
        )
        self.assertIn("harn/py.typed", names)
        self.assertEqual({name.split("/")[0] for name in names if ".dist-info" not in name}, {"harn", "twisted"})
        self.assertIn(f"\nVersion: {harn.__version__}\n", said)
        self.assertRegex(said, r"\nRequires-Python: >=3\.11\n")
        self.assertIn("harn = harn.__main__:main", entry)


class DependencyTests(SynchronousTestCase):
    """What ``setup.cfg`` says is needed."""

    def test_everything_imported_is_named(self) -> None:
        """Each third-party package that a module imports is a dependency, so that a fresh install has it."""
        if not (SOURCE / "setup.cfg").exists():
            raise SkipTest("the source is not here")
        from tests.test_layers import imports, modules

        parsed = ConfigParser()
        parsed.read(SOURCE / "setup.cfg", encoding="utf-8")
        extras = parsed["options.extras_require"]
        needed = (
            parsed["options"]["install_requires"],
            extras["keyring"],
            extras["mcp"],
            extras["otel"],
            extras["postgres"],
        )
        lines = [line for text in needed for line in text.split("\n")]
        named = {re.split(r"[ \[<>=]", line.strip())[0].lower() for line in lines if line.strip()}
        owners = importlib.metadata.packages_distributions()
        imported = {name.split(".")[0] for _, path in modules() for _, name in imports(path)}
        foreign = imported - sys.stdlib_module_names - {"harn"}
        missing = {
            name
            for name in foreign
            if name in owners and not named & {owner.lower().replace("_", "-") for owner in owners[name]}
        }
        self.assertEqual(missing, set())


class ChangelogTests(SynchronousTestCase):
    """`CHANGELOG.md` and the fragments that it is built from."""

    def setUp(self) -> None:
        if not (SOURCE / "newsfragments").exists():
            raise SkipTest("the source is not here")
        with (SOURCE / "pyproject.toml").open("rb") as file:
            self.settings = tomllib.load(file)["tool"]["towncrier"]

    def test_fragments_are_taken(self) -> None:
        """Each fragment's name gives a kind that the changelog has a heading for; towncrier leaves out all others."""
        kinds = "|".join(kind["directory"] for kind in self.settings["type"])
        name = re.compile(rf"(\d+|\+[\w-]+)\.({kinds})(\.\d+)?\.md")
        fragments = [path for path in (SOURCE / "newsfragments").iterdir() if path.name != "template.md"]
        self.assertEqual([path.name for path in fragments if not name.fullmatch(path.name)], [])
        self.assertEqual([path.name for path in fragments if not path.read_text("utf-8").strip()], [])

    def test_version_has_changes(self) -> None:
        """The version in force is the newest of the changelog, or fragments wait that will be its entry."""
        text = (SOURCE / self.settings["filename"]).read_text("utf-8")
        newest = re.findall(r"^## (\S+) \(", text, re.MULTILINE)[0]
        waiting = list((SOURCE / "newsfragments").glob("[0-9+]*.md"))
        self.assertTrue(newest == harn.__version__ or waiting, f"newest is {newest}, and no fragment waits")

    def test_new_entries_go_under_the_mark(self) -> None:
        """The changelog has the line below which a release's entry is put."""
        text = (SOURCE / self.settings["filename"]).read_text("utf-8")
        self.assertEqual(text.count(self.settings["start_string"]), 1)
