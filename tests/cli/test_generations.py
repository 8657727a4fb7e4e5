"""``history``, ``show`` and ``diff``: from a server, and from the store that it left."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec
from click.testing import CliRunner, Result
from msgspec import convert, structs, to_builtins
from msgspec.json import encode
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.cli.generations import counts, describe, describe_diff, diff_lines, note_of
from harn.cli.main import cli
from harn.cli.output import Line
from harn.history.operations import GenerationDiff, describe_history, describe_recorded
from harn.orchestrator.stores import DATABASE
from harn.reload.results import GenerationSummary
from harn.store.generations import GenerationRecord
from harn.store.sqlite.store import SQLiteStore
from harn.vm.bundle import Bundle, Module, encode_bundle, make_bundle
from harn.wire import digest_bytes
from tests.cli.test_commands import CommandCase

RECORD = GenerationRecord(
    number=7,
    digest="sha256:7",
    bundle_id="sha256:b",
    source="cli",
    actor="key:1",
    adopted_at=1.0,
    recalled=5,
    reason="not confirmed",
    summary={"added": ["a"], "modified": [], "removed": [], "counts": {"added": 12, "modified": 0, "removed": 3}},
)
LIVE: dict[str, Any] = {
    "generation": 7,
    "digest": "sha256:7",
    "drift": False,
    "last_failed": None,
    "waiting": None,
    "ramps": [],
}
DIFF = {
    "from": 3,
    "to": 5,
    "summary": {"added": ["new"], "modified": ["gh"], "removed": ["old"], "unchanged": 7},
    "changes": {"gh": {"fields": [{"key": "retry.max", "old": 3, "new": 5}], "code": ["/srv/handlers.py"]}},
    "settings": [{"key": "orchestrator.recover", "old": "auto", "new": "manual", "applies": "restart"}],
    "files": [
        {
            "path": "/srv/handlers.py",
            "change": "modified",
            "old": "1",
            "new": "2",
            "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n",
        },
        {"path": "/srv/data.bin", "change": "removed", "old": "1", "new": None, "diff": ""},
    ],
    "manifest": "--- generation 3/manifest\n+++ generation 5/manifest\n@@ -1 +1,2 @@\n a = 1\n+\tb = 2\n",
}


def texts(lines: Iterable[Line]) -> list[str]:
    """Return the lines without their styles."""
    return [text for text, _ in lines]


class DescriptionTests(SynchronousTestCase):
    """What people read."""

    def test_counts(self) -> None:
        """Counts come from where they are whole: lists may be cut."""
        self.assertEqual(counts(describe_history((RECORD,), None)[0].summary), "+12 ~0 -3")
        self.assertEqual(counts(GenerationSummary(added=("a",), modified=(), removed=("b", "c"))), "+1 ~0 -2")
        self.assertEqual(counts(GenerationSummary()), "+0 ~0 -0")

    def test_notes(self) -> None:
        """A generation whose content gave way to an earlier one says to whom; one that continues does not."""
        [record] = describe_history([replace(RECORD, number=5, recalled=None)], None)
        plain = structs.replace(record, source="cli")
        back = structs.replace(plain, generation=6, recalled=3)
        again = structs.replace(back, recalled=5, source="file_watch")
        for entry, newer, note in (
            (plain, None, ""),
            (plain, structs.replace(back, recalled=None), ""),
            (plain, back, "rolled back by generation 6"),
            (plain, structs.replace(back, source="revert"), "reverted by generation 6"),
            (structs.replace(plain, recalled=3), back, ""),
            (plain, again, ""),
        ):
            self.assertEqual(note_of(entry, newer, None), note)

    def test_generation(self) -> None:
        """The facts, the modules, the manifest; sources when they are there."""
        module = Module(name="h", path="/srv/h.py", source=b"x = 1\n\ny = 2", is_package=False)
        bundle = make_bundle({"h": module})
        said = texts(describe(describe_recorded(RECORD, "a = 1\n", bundle, 7, sources=True)))
        self.assertEqual(
            said,
            [
                "generation: 7",
                "digest: sha256:7",
                "manifest_digest: -",
                "source: cli",
                "actor: key:1",
                "adopted_at: 1970-01-01T00:00:01.000Z",
                "live: true",
                "recalled: 5",
                "reason: not confirmed",
                "summary: +12 ~0 -3",
                f"module h: /srv/h.py {module.digest}",
                "",
                "==> manifest <==",
                "a = 1",
                "",
                "==> /srv/h.py <==",
                "x = 1",
                "",
                "y = 2",
            ],
        )
        brief = texts(describe(describe_recorded(RECORD, "a = 1\n", bundle, 7, sources=False)))
        self.assertEqual(brief, said[:14])

    def test_diff(self) -> None:
        """Triggers and settings first, then the texts as ``patch`` reads them."""
        self.assertEqual(
            texts(describe_diff(convert(DIFF, GenerationDiff))),
            [
                "generation 3 -> 5 (+1 ~1 -1)",
                "  + new",
                "  ~ gh",
                "      retry.max: 3 -> 5",
                "      code /srv/handlers.py",
                "  - old",
                "  setting orchestrator.recover: auto -> manual (requires a restart)",
                *str(DIFF["manifest"]).splitlines(),
                *["--- a", "+++ b", "@@ -1 +1 @@", "-x", "+y"],
                "file /srv/data.bin: removed",
            ],
        )
        styles = dict(describe_diff(convert(DIFF, GenerationDiff)))
        self.assertEqual((styles["+y"], styles["-x"], styles["+++ b"]), ("green", "red", "bold"))

    def test_line_ends_are_part_of_a_text(self) -> None:
        """Away from a terminal a line of a diff is as ``patch`` needs it, whatever it ends with."""
        self.assertEqual(texts(diff_lines("-x\r\n+x\n")), ["-x\r", "+x"])

    def test_diff_that_compares_texts_only(self) -> None:
        """A note says that a manifest is not accepted any more."""
        nothing: dict[str, Any] = {"summary": {}, "changes": {}, "settings": [], "files": [], "manifest": ""}
        found = convert({**nothing, "from": 1, "to": 2, "note": "only texts"}, GenerationDiff)
        said = texts(describe_diff(found))
        self.assertEqual(said, ["generation 1 -> 2 (+0 ~0 -0)", "  note: only texts"])


class ServerTests(CommandCase):
    """With a server."""

    def test_history(self) -> None:
        """Each generation is a line; as JSON they are as the server gave them."""
        records = [RECORD, replace(RECORD, number=6, recalled=None, reason="")]
        entries = json.loads(encode(describe_history(records, 7)))
        server = self.serve(*[(200, {"generations": entries}), (200, {**LIVE, "probation": None})] * 2)
        self.assertEqual(
            self.harn("history").stdout.splitlines(),
            [
                "Generations:",
                "- generation=7 digest=sha256:7 source=cli actor=key:1 adopted_at=1970-01-01T00:00:01.000Z live=true"
                " recalled=5 reason=not confirmed summary=+12 ~0 -3",
                "- generation=6 digest=sha256:7 source=cli actor=key:1 adopted_at=1970-01-01T00:00:01.000Z live=false"
                " recalled=- reason=- summary=+12 ~0 -3 note=rolled back by generation 7",
            ],
        )
        self.assertEqual(json.loads(self.harn("history", "--limit", "3", "--json").stdout), entries)
        self.assertEqual(
            [seen.target for seen in server.seen][::2], ["/admin/generations", "/admin/generations?limit=3"]
        )

    def test_probation(self) -> None:
        """The generation that is on probation says until when; as JSON it has all of that."""
        records = [replace(RECORD, recalled=None), replace(RECORD, number=6, recalled=None)]
        entries = to_builtins(describe_history(records, 7))
        confirm, judged = {"confirm_by": "2026-01-02T03:04:05.000Z"}, {"until": "2026-01-02T03:06:05.000Z"}
        cases = (
            ({**confirm, **judged}, "on probation until 2026-01-02T03:04:05.000Z"),
            (judged, "on probation until 2026-01-02T03:06:05.000Z"),
            ({**judged, "verdict": "too many failures"}, "being undone"),
        )
        server = self.serve()
        for terms, said in cases:
            probation = {"generation": 7, "fallback": 6, "began_at": "2026-01-02T03:03:05.000Z", **terms}
            server.answers += [(200, {"generations": entries}), (200, {**LIVE, "probation": probation})] * 2
            first, second = self.harn("history").stdout.splitlines()[1:]
            self.assertTrue(first.endswith(f"note={said}"), first)
            self.assertNotIn("note=", second)
            self.assertEqual(json.loads(self.harn("history", "--json").stdout)[0]["probation"], probation)

    def test_show(self) -> None:
        """One generation is asked for, its sources when they are wanted."""
        shown = json.loads(msgspec.json.encode(describe_recorded(RECORD, "a = 1\n", make_bundle({}), 7, sources=True)))
        server = self.serve((200, shown), (200, shown))
        self.assertEqual(json.loads(self.harn("show", "7", "--json").stdout), shown)
        self.assertIn("==> manifest <==\na = 1\n", self.harn("show", "7", "--sources").stdout)
        targets = [seen.target for seen in server.seen]
        self.assertEqual(targets, ["/admin/generations/7", "/admin/generations/7?sources=true"])

    def test_diff(self) -> None:
        """Two generations are compared, or one with the live one."""
        server = self.serve((200, DIFF), (200, DIFF))
        self.assertEqual(json.loads(self.harn("diff", "3", "5", "--json").stdout), DIFF)
        self.assertIn("+\tb = 2\n", self.harn("diff", "3").stdout)
        self.assertEqual([seen.target for seen in server.seen], ["/admin/diff?from=3&to=5", "/admin/diff?from=3"])

    def test_not_kept(self) -> None:
        """A generation that is not kept exits 1 with what is."""
        self.serve((404, {"status": 404, "detail": "the content of generation 3 is not kept; kept are: 5"}))
        self.assert_failed(self.harn("show", "3"), "kept are: 5")

    def test_usage(self) -> None:
        """A value that cannot be the number of a generation is wrong usage."""
        for words in (
            ["show"],
            ["show", "x"],
            ["show", "0"],
            ["diff"],
            ["diff", "1", "2", "3"],
            ["history", "--limit", "0"],
        ):
            self.assertEqual(self.harn(*words).exit_code, 2, words)

    def test_no_store(self) -> None:
        """Where there is neither a server nor a store, the error names the place."""
        for words in (["history"], ["show", "1"], ["diff", "1"]):
            self.assert_failed(self.harn(*words), self.state_dir)


MANIFEST = """
[[triggers]]
id = "a"
kind = "webhook"
provider = "github"
handler = "h:f"
match = {{ events = ["issues.*"] }}
timeout = "{timeout}"
secrets = {{ signing_secret = "github/a" }}
"""


class StoreTests(TestCase):
    """Without one."""

    async def write(self, *generations: tuple[str, bytes]) -> str:
        """Make a state directory whose store has these generations, each of a manifest and a source."""
        directory = self.mktemp()
        os.mkdir(directory)
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        for number, (manifest, source) in enumerate(generations, 1):
            record, bundle = self.record(number, manifest, source), self.bundle(source)
            await store.generations.reserve(record, encode_bundle(bundle), zlib.compress(manifest.encode()))
            await store.generations.adopted(number, 100.0 + number)
        await store.close()
        return directory

    def bundle(self, source: bytes) -> Bundle:
        return make_bundle({"h": Module(name="h", path="/srv/h.py", source=source, is_package=False)})

    def record(self, number: int, manifest: str, source: bytes) -> GenerationRecord:
        return GenerationRecord(
            number=number,
            digest=f"sha256:{number}",
            bundle_id=self.bundle(source).bundle_id,
            source="cli",
            actor="key:1",
            manifest_digest=digest_bytes(manifest.encode()),
            summary={"added": ["a"]},
        )

    def harn(self, directory: str, *words: str) -> Result:
        return CliRunner().invoke(cli, ["orchestrator", *words, "--state-dir", directory], prog_name="harn")

    async def test_history(self) -> None:
        """The generations are listed as a server lists them, and none of them is live."""
        directory = await self.write((MANIFEST, b"a"), (MANIFEST, b"b"))
        found = json.loads(self.harn(directory, "history", "--json").stdout)
        records = [replace(self.record(n, MANIFEST, b"ab"[n - 1 : n]), adopted_at=100.0 + n) for n in (2, 1)]
        self.assertEqual(found, json.loads(encode(describe_history(records, None))))
        self.assertEqual(len(json.loads(self.harn(directory, "history", "--json", "--limit", "1").stdout)), 1)

    async def test_show(self) -> None:
        """A generation is shown with the manifest and the sources that it had."""
        directory = await self.write((MANIFEST, b"x = 1\n"))
        record = replace(self.record(1, MANIFEST, b"x = 1\n"), adopted_at=101.0)
        for sources in (False, True):
            words = ["show", "1", "--json", *(["--sources"] if sources else [])]
            shown = describe_recorded(record, MANIFEST, self.bundle(b"x = 1\n"), None, sources=sources)
            self.assertEqual(json.loads(self.harn(directory, *words).stdout), json.loads(msgspec.json.encode(shown)))

    async def test_diff(self) -> None:
        """Two generations are compared by trigger, field and file; by default with the one that served last."""
        old, new = MANIFEST.format(timeout="5s"), MANIFEST.format(timeout="9s")
        directory = await self.write((old, b"x = 1\n"), (old, b"x = 2\n"), (new, b"x = 2\n"))
        result = self.harn(directory, "diff", "1")
        self.assertEqual(result.exit_code, 0, result.output)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[:3], ["generation 1 -> 3 (+0 ~1 -0)", "  ~ a", "      timeout: 5s -> 9s"])
        for line in ("      code /srv/h.py", '-timeout = "5s"', '+timeout = "9s"', "-x = 1", "+x = 2"):
            self.assertIn(line, lines)
        found = json.loads(self.harn(directory, "diff", "2", "1", "--json").stdout)
        self.assertEqual((found["from"], found["to"], found["summary"]["modified"]), (2, 1, ["a"]))
        self.assertEqual(found["changes"]["a"]["fields"], [])

    async def test_manifest_that_is_not_accepted_any_more(self) -> None:
        """What the installed connectors do not accept is compared as text, and that is said."""
        directory = await self.write((MANIFEST.format(timeout="5s"), b""), ("[nonsense]\n", b""))
        result = self.harn(directory, "diff", "1", "2")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("note: the manifest of generation 2 is not accepted any more", result.stdout)
        self.assertIn("+[nonsense]", result.stdout.splitlines())

    async def test_unknown(self) -> None:
        """A generation that is not kept, and an empty store, exit 1 and say so."""
        directory = await self.write((MANIFEST, b""))
        for words in (["show", "9"], ["diff", "9"], ["diff", "1", "9"]):
            result = self.harn(directory, *words)
            self.assertEqual((result.exit_code, result.stdout), (1, ""), words)
            self.assertIn("error: the content of generation 9 is not kept", result.stderr)
        empty = await self.write()
        self.assertEqual(self.harn(empty, "history").stdout, "Generations:\n- none\n")
        self.assertIn("no generation has served yet", self.harn(empty, "diff", "1").stderr)
        self.assertEqual(self.harn(empty, "diff", "1").exit_code, 1)

    async def test_damaged(self) -> None:
        """Content that cannot be read is said to be damaged."""
        directory = self.mktemp()
        os.mkdir(directory)
        store = SQLiteStore.at(os.path.join(directory, DATABASE), reactor)
        await store.open()
        await store.generations.reserve(
            self.record(1, MANIFEST, b""), encode_bundle(self.bundle(b"")), b"no zlib at all"
        )
        await store.generations.adopted(1, 1.0)
        await store.close()
        result = self.harn(directory, "show", "1")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("error: the content of generation 1 is damaged", result.stderr)
