"""The documentation: what is generated is up to date, what it links to is there, and its examples are right."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, TestCase

import harn
from harn.connectors.catalog import Catalog
from harn.connectors.gate import Gate
from harn.connectors.interfaces import ConnectorContext
from harn.destinations.catalog import DestinationCatalog
from harn.errors import AttemptFailed
from harn.manifest.interfaces import PluginRules
from harn.manifest.load import load_manifest
from harn.manifest.source import ManifestSource
from harn.model import delivery
from harn.store.event_log import VIEWS
from harn.testing.connectors import signed_case
from harn.testing.events import example
from harn.testing.handlers import run_handler
from harn.triggers.matching import matches

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
BLOCK = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
CHOSEN = (
    *("application_command.deploy", "call.ringing", "com.example.order.paid", "incident.triggered", "invoice.paid"),
    *("issue.create", "merge_request.open", "page.created", "payment_intent.succeeded", "pull_request.opened"),
)
"""Kinds of which there are events, for what a manifest takes by their beginning."""
VARIABLE = re.compile(r"HARN_(?:ORCHESTRATOR|SECRET)_[A-Z_]*[A-Z]")
EXAMPLES = frozenset(("HARN_SECRET_GITHUB_WEBHOOK_SECRET", "HARN_SECRET_GITHUB_WEBHOOK_SECRET_V"))
"""Variables that docstrings name as examples of secrets."""


def pages() -> list[Path]:
    """Return every page."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yield the examples of one language on a page."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found["language"] == language:
            yield found["text"]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as Git hosts make them of headings."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leaves(navigation: Any) -> Iterator[str]:
    """Yield the paths of a navigation."""
    if isinstance(navigation, str):
        yield navigation
        return
    for each in navigation.values() if isinstance(navigation, dict) else navigation:
        yield from leaves(each)


class DocumentationCase(TestCase):
    """A test of the pages, where they are: a wheel does not have them."""

    def setUp(self) -> None:
        if not DOCS.is_dir():
            raise SkipTest("the documentation is not here")


class GeneratedTests(DocumentationCase):
    """``docs/generate.py``."""

    def generate(self) -> Any:
        """Import the script."""
        spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_up_to_date(self) -> None:
        """Every generated part is up to date; else run ``python docs/generate.py``."""
        generate = self.generate()
        used: list[str] = []
        for page in sorted((DOCS / "reference").glob("*.md")):
            text = page.read_text(encoding="utf-8")
            used += [found["name"] for found in generate.PART.finditer(text)]
            self.assertEqual(text, generate.renew(text), f"{page.name} is out of date; run: python docs/generate.py")
        self.assertEqual(sorted(used), sorted(generate.PARTS))


class PageTests(DocumentationCase):
    """What the pages say."""

    def test_links(self) -> None:
        """Every link within the project leads to a file that is there, and to a heading that is in it."""
        broken = []
        for page in pages():
            for link in LINK.finditer(BLOCK.sub("", page.read_text(encoding="utf-8"))):
                target = (page.parent / link["path"]).resolve() if link["path"] else page
                if not target.exists() or (link["anchor"] and link["anchor"] not in anchors(target)):
                    broken.append(f"{page.relative_to(ROOT)}: {link[0]}")
        self.assertEqual(broken, [])

    def test_every_page_is_on_the_map(self) -> None:
        """The map leads to every other page."""
        linked = {link["path"] for link in LINK.finditer((DOCS / "index.md").read_text(encoding="utf-8"))}
        there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
        self.assertEqual(there - linked, {"index.md"})

    def test_every_page_is_in_the_navigation(self) -> None:
        """The site's navigation leads to every page, once."""
        navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
        self.assertEqual(sorted(leaves(navigation)), sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")))

    def test_every_variable_is_described(self) -> None:
        """Each environment variable that the code names is in the reference of the command line."""
        said = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
        sources = [path.read_text(encoding="utf-8") for path in sorted(Path(harn.__file__).parent.rglob("*.py"))]
        named = {name for source in sources for name in VARIABLE.findall(source)} - EXAMPLES
        self.assertIn("HARN_ORCHESTRATOR_API_KEYS", named)
        self.assertEqual({name for name in named if name not in said}, set())

    def test_every_reason_is_described(self) -> None:
        """Each topic, each reason of a dead letter and each class of an attempt's error is in the reference."""
        said = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
        reasons = (
            *(delivery.RETRY_EXHAUSTED, delivery.REJECTED, delivery.FILTER_ERROR),
            *(delivery.BINDING_REMOVED, delivery.RECOVERY_LIMIT, delivery.DRAIN_CANCELLED),
        )
        classes = [each.error_class for each in AttemptFailed.__subclasses__()]
        self.assertEqual([name for name in (*VIEWS, *reasons, *classes) if f"`{name}`" not in said], [])


class PictureTests(DocumentationCase):
    """The pictures."""

    def test_pictures(self) -> None:
        """Each is small, says what it shows, loads nothing, is made for both colour schemes, and is on a page."""
        shown = "".join(page.read_text(encoding="utf-8") for page in pages())
        found = sorted(DOCS.rglob("*.svg"))
        self.assertEqual([path.name for path in found], ["delivery.svg", "reload.svg"])
        for path in found:
            text = path.read_text(encoding="utf-8")
            root = ElementTree.fromstring(text)
            names = {each.tag.rpartition("}")[2]: each for each in root}
            labelled = [root.find(f"*[@id='{each}']") for each in root.attrib["aria-labelledby"].split()]
            self.assertEqual(labelled, [names["title"], names["desc"]])
            self.assertGreater(len(names["desc"].text or ""), 100)
            self.assertNotRegex(text.replace('xmlns="http://www.w3.org/2000/svg"', ""), "https?:|href|<script|@import")
            self.assertIn("prefers-color-scheme: dark", text)
            self.assertLess(len(text), 8_000)
            self.assertIn(f"]({path.name})", shown)


class MessageTests(DocumentationCase):
    """The messages that `docs/howto/troubleshooting.md` shows."""

    varying = re.compile(r"\b[A-Z][A-Z_/]*[A-Z]\b|\bN\b|[.]{3}")
    """What stands for a value on the page."""

    def texts(self) -> Iterator[str]:
        """Yield each text of the code; of one with values, what stands between them."""
        for path in sorted(Path(harn.__file__).parent.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from re.split(r"\{[^{}]*\}", node.value)

    def test_as_in_the_code(self) -> None:
        """Each message is that of the code, word for word."""
        page = DOCS / "howto" / "troubleshooting.md"
        shown = [line for text in blocks(page, "text") for line in text.splitlines()]
        self.assertGreater(len(shown), 20)
        code = "\0".join(self.texts())
        parts = {line: [part for part in self.varying.split(line) if part.strip(" .:")] for line in shown}
        self.assertEqual([line for line, found in parts.items() if not found], [])
        self.assertEqual([(line, part) for line, found in parts.items() for part in found if part not in code], [])


class ExampleTests(DocumentationCase):
    """The examples."""

    def plugin(self) -> Any:
        """Run the example of a connector; give its plugin."""
        first = next(blocks(DOCS / "howto" / "write-a-connector.md", "python"))
        names: dict[str, Any] = {"__name__": "acme"}
        exec(compile(first, "acme.py", "exec"), names)
        return names["acme"]

    async def test_manifests(self) -> None:
        """Every example of a whole manifest is valid."""
        ours = Catalog.discover()
        catalog = Catalog.of([*ours.plugins.values(), self.plugin()])
        self.assertEqual(catalog.problems, ())
        rules = PluginRules(catalog.providers, DestinationCatalog.discover().schemes)
        seen = 0
        for page in pages():
            for text in blocks(page, "toml"):
                if "[[triggers]]" in text:
                    source = ManifestSource.of(str(page), text.encode("utf-8"))
                    await load_manifest(source, None, rules, reactor)
                    seen += 1
        self.assertGreater(seen, 3)

    def test_declared_connector(self) -> None:
        """The example of a declared connector takes the request that it gives as its own."""
        case = signed_case(self.plugin())
        assert case.request is not None
        context = ConnectorContext(clock=Clock(), binding=case.binding, gate=Gate())
        made = case.plugin.connector(context)
        made.prepare()
        made.verify(case.request, case.now)
        (event,) = made.normalize(case.request).events
        self.assertEqual((event.kind, event.occurred_at), ("parcel.sent", "2023-11-14T22:13:20.000Z"))

    def test_senders(self) -> None:
        """The handler of each sender's page handles an event of each kind that the manifest beside it takes."""
        seen = 0
        for page in sorted((DOCS / "howto" / "senders").glob("*.md")):
            code = [text for text in blocks(page, "python") if "def on_" in text]
            manifests = [text for text in blocks(page, "toml") if "[[triggers]]" in text]
            for text, manifest in zip(code, manifests, strict=False):
                names: dict[str, Any] = {}
                exec(compile(text, str(page), "exec"), names)
                (trigger,) = tomllib.loads(manifest)["triggers"]
                handler = names[trigger["handler"].partition(":")[2]]
                settings = trigger.get(trigger["provider"])
                for kind in trigger["match"]["events"]:
                    kind = next((each for each in CHOSEN if matches((kind,), each)), kind)
                    event = example(trigger["provider"], kind, settings=settings)
                    run = run_handler(handler, event)
                    self.assertEqual((run.outcome, event.kind), ("success", kind), (page.name, run))
                    seen += 1
        self.assertGreater(seen, 25)

    def test_python(self) -> None:
        """Every example in Python compiles."""
        for page in pages():
            for text in blocks(page, "python"):
                compile(text, str(page), "exec")
