"""A manifest in several files, and the defaults of its triggers."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ManifestInvalid
from harn.manifest.load import LoadedManifest, check_document
from harn.manifest.source import ManifestSource, SourceFile, read_manifest
from harn.testing.manifests import trigger_text
from harn.wire import digest_bytes
from tests.manifest.rules import RULES, complaints, load

INCLUDING = 'include = ["triggers.d/*.toml"]\n'


def trigger(trigger_id: str, extra: str = "") -> str:
    """Return a trigger of the provider ``github`` that gives only what has no default."""
    return (
        f'[[triggers]]\nid = "{trigger_id}"\nmatch = {{ events = [] }}\n'
        f'secrets = {{ signing_secret = "github/s" }}\n{extra}'
    )


class PartsCase(SynchronousTestCase):
    """A folder with a manifest and files that it includes."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        (self.root / "triggers.d").mkdir(parents=True)
        self.write("harn.toml", INCLUDING)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, "utf-8", newline="")

    def part(self, name: str, text: str) -> None:
        self.write(f"triggers.d/{name}.toml", text)

    def line(self, name: str, beginning: str) -> int:
        """Return the number of the line of a part that begins so."""
        lines = (self.root / f"triggers.d/{name}.toml").read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if line.startswith(beginning))

    def source(self) -> ManifestSource:
        return read_manifest(str(self.root / "harn.toml"), "conf/harn.toml")

    def load(self, previous: LoadedManifest | None = None) -> LoadedManifest:
        return check_document(self.source(), previous, RULES)

    def complaints(self) -> list[str]:
        error = self.assertRaises(ManifestInvalid, self.load)
        return [str(problem) for problem in error.problems]


class IncludeTests(PartsCase):
    """``include``."""

    def test_triggers_of_all_files(self) -> None:
        """The manifest's own triggers come first, then those of each file, in the order of names."""
        self.write("harn.toml", INCLUDING + trigger_text("own"))
        self.part("b", trigger_text("b1") + trigger_text("b2"))
        self.part("a", "# only a comment before it\n\n" + trigger_text("a"))
        loaded = self.load()
        self.assertEqual(list(loaded.manifest.triggers), ["own", "a", "b1", "b2"])
        names = ("harn.toml", "triggers.d/a.toml", "triggers.d/b.toml")
        paths = [self.root / name for name in names]
        self.assertEqual(loaded.files, {str(path): digest_bytes(path.read_bytes()) for path in paths})

    def test_nothing_to_include(self) -> None:
        """A pattern may match nothing; the manifest is then the bytes of its file."""
        self.write("harn.toml", INCLUDING + trigger_text("own"))
        loaded = self.load()
        self.assertEqual(loaded.manifest.digest, digest_bytes((self.root / "harn.toml").read_bytes()))
        self.assertEqual(loaded.manifest.include, ("triggers.d/*.toml",))

    def test_other_names_are_left_alone(self) -> None:
        """Hidden files, such as an editor's, and other suffixes are not read; a file counts once."""
        self.write("harn.toml", 'include = ["*.toml", "triggers.d/*.toml", "triggers.d/a.toml"]\n')
        self.part("a", trigger_text("a"))
        self.part(".a", "no TOML")
        self.write("triggers.d/b.toml~", "no TOML")
        self.assertEqual(list(self.load().manifest.triggers), ["a"])

    def test_problems_name_file_and_line(self) -> None:
        """A problem gives the line in the file that it is in; a twin is named with its own file."""
        self.part("a", "\n" + trigger_text("a"))
        self.part("b", "# b\n" + trigger_text("a", extra='path = "/b"\nhandlr = "x"'))
        twin, unknown = self.complaints()
        self.assertEqual(
            twin,
            f"conf/triggers.d/b.toml:{self.line('b', 'id =')}: triggers[1] (a): id: "
            '"a" is also the id of triggers[0] (a) on line 3 of conf/triggers.d/a.toml; '
            "give each trigger an id of its own",
        )
        self.assertTrue(unknown.startswith(f"conf/triggers.d/b.toml:{self.line('b', 'handlr')}: "), unknown)

    def test_problem_after_loading(self) -> None:
        """What is found later, such as a function that is missing, has file and line too."""
        self.part("a", trigger_text("a"))
        self.part("b", "\n\n" + trigger_text("b"))
        problem = self.load().problem("b", "handler", "is missing")
        self.assertEqual((problem.file, problem.line), ("conf/triggers.d/b.toml", self.line("b", "handler")))

    def test_triggers_alone(self) -> None:
        """An included file holds only triggers, wherever in it the other tables stand."""
        own = trigger_text("x")
        advice = "an included file holds [[triggers]] alone; move it to conf/harn.toml, or below a [[triggers]]"
        for text, line, key in (
            (f"weight = 3\n{own}", 1, "weight"),
            (f"[orchestrator]\n{own}", 1, "orchestrator"),
            (f"{own}\n[exports]\n", own.count("\n") + 2, "exports"),
        ):
            self.part("a", text)
            self.part("b", trigger_text("b"))
            self.assertEqual(self.complaints(), [f"conf/triggers.d/a.toml:{line}: {key}: {advice}"])

    def test_each_file_is_whole(self) -> None:
        """What one file leaves open does not reach into the next: the problem is in the first."""
        self.part("a", trigger_text("a") + 'filter = """\n')
        self.part("b", trigger_text("b", extra='filter = """\n"""'))
        (said,) = self.complaints()
        self.assertTrue(said.startswith("conf/triggers.d/a.toml:"), said)
        self.assertIn("is not TOML", said)

    def test_unusual_spelling(self) -> None:
        """Triggers must begin as the text is cut."""
        self.part("a", "[[ triggers ]]\n")
        advice = "must begin each trigger with [[triggers]], at the beginning of a line"
        self.assertEqual(self.complaints(), [f"conf/triggers.d/a.toml:1: {advice}"])

    def test_whole_parse(self) -> None:
        """Where the manifest itself cannot be cut, triggers, files and lines are right all the same."""
        self.write("harn.toml", f"{INCLUDING}{trigger_text('own')}\n[orchestrator]\nallow_empty = true\n")
        self.part("a", trigger_text("a"))
        self.assertEqual(list(self.load().manifest.triggers), ["own", "a"])
        self.part("a", trigger_text("a", extra="handlr = 1"))
        (said,) = self.complaints()
        self.assertTrue(said.startswith("conf/triggers.d/a.toml:"), said)

    def test_missing_file(self) -> None:
        """A name without a wildcard must be there."""
        self.write("harn.toml", '# Ours.\ninclude = [\n  "more.toml",\n  "less.toml",\n]\n')
        self.assertEqual(
            self.complaints(),
            [
                f"conf/harn.toml:{line}: include: included file not found: conf/{name}.toml; write it, or take it out"
                " of include"
                for line, name in ((3, "more"), (4, "less"))
            ],
        )

    def test_itself(self) -> None:
        """A manifest that names itself is a problem; a pattern that it matches leaves it out."""
        self.write("harn.toml", f'include = ["harn.toml"]\n{trigger_text("a")}')
        (said,) = self.complaints()
        self.assertEqual(said, "conf/harn.toml:1: include: conf/harn.toml includes itself; take it out of include")
        (said,) = complaints(f'{trigger_text("a")}include = ["triggers.d/*.toml"]\n')
        self.assertIn("include: is not a key of a trigger; write it before the first table of the manifest", said)

    def test_patterns(self) -> None:
        """A pattern stays below the manifest and names TOML files."""
        for pattern in ("../x.toml", "/etc/x.toml", "~/x.toml", "x.txt", ""):
            (said,) = complaints(f'include = ["{pattern}"]\n{trigger_text("a")}')
            self.assertTrue(said.startswith("harn.toml:1: include[0]: "), said)
        self.assertTrue(complaints(f"include = 3\n{trigger_text('a')}")[0].startswith("harn.toml:1: include: "))

    def test_an_edit_of_one_file(self) -> None:
        """Triggers of the other files keep their very specs; adding a file keeps all."""
        self.part("a", trigger_text("a"))
        self.part("b", trigger_text("b"))
        before = self.load()
        self.part("b", trigger_text("b", extra='timeout = "1s"'))
        self.part("c", trigger_text("c"))
        after = self.load(before)
        self.assertIs(after.manifest.triggers["a"], before.manifest.triggers["a"])
        self.assertEqual(after.manifest.triggers["b"].timeout, 1.0)
        self.assertNotEqual(after.manifest.digest, before.manifest.digest)
        self.assertIs(self.load(after), after)


class StoredTests(SynchronousTestCase):
    """Several files as the bytes of one manifest."""

    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    def test_round_trip(self, contents: list[bytes]) -> None:
        """The files come back to the byte, whatever they end in."""
        names = ["harn.toml", *(f"d/{index}.toml" for index in range(1, len(contents)))]
        files = [
            SourceFile(path=f"/srv/{name}", shown=f"conf/{name}", data=data)
            for name, data in zip(names, contents, strict=True)
        ]
        joined = ManifestSource.joined(files)
        self.assertEqual(ManifestSource.of("/srv/harn.toml", joined.data, "conf/harn.toml"), joined)

    def test_a_comment_of_the_author(self) -> None:
        """A last line that only looks like the list of files is a comment."""
        for comment in ("# harn: the files above are many", '# harn: the files above are [["", "x"]]'):
            data = f"a = 1\n{comment}\n".encode()
            self.assertEqual([each.data for each in ManifestSource.of("/srv/harn.toml", data).files], [data])


class DefaultsTests(SynchronousTestCase):
    """``[defaults]``."""

    HEAD = '[defaults]\nprovider = "github"\nkind = "webhook"\nhandler = "handlers:on_any"\n'

    def test_filled_in(self) -> None:
        """A trigger has the default of each key that it does not give; of a table, of each key in it."""
        head = f'{self.HEAD}timeout = "7s"\nretry = {{ max = 4, backoff = "linear", base = "2s" }}\n'
        given = 'timeout = "9s"\nretry.max = 1'
        triggers = load(head + trigger("a") + trigger("b", given)).manifest.triggers
        a, b = triggers["a"], triggers["b"]
        self.assertEqual((a.provider, a.kind, a.handler), ("github", "webhook", "handlers:on_any"))
        self.assertEqual((a.timeout, a.retry.max, a.retry.backoff), (7.0, 4, "linear"))
        self.assertEqual((b.timeout, b.retry.max, b.retry.backoff), (9.0, 1, "linear"))

    def test_equal_to_writing_it(self) -> None:
        """A default makes the very trigger that writing the value would."""
        written = load(trigger("a", 'provider = "github"\nkind = "webhook"\nhandler = "handlers:on_any"\n'))
        self.assertEqual(load(self.HEAD + trigger("a")).manifest.fingerprints, written.manifest.fingerprints)

    def test_changed_defaults(self) -> None:
        """Another default changes the triggers that use it, and no other, also where their text is the same."""
        text = f'{self.HEAD}timeout = "7s"\n' + trigger("a") + trigger("b", 'timeout = "1s"\n')
        before = load(text)
        after = load(text.replace('"7s"', '"8s"'), before)
        self.assertEqual(after.manifest.triggers["a"].timeout, 8.0)
        self.assertIs(after.manifest.triggers["b"], before.manifest.triggers["b"])

    def test_problems(self) -> None:
        """A wrong default is one problem, on its own line, however many triggers use it."""
        text = f"{self.HEAD}timeout = 3\nid = 'x'\nweigth = 2\n{trigger('a')}{trigger('b')}"
        self.assertEqual(
            complaints(text),
            [
                'harn.toml:5: defaults.timeout: must be a string with a unit, got an integer; write it as "3s"',
                "harn.toml:6: defaults.id: cannot have a default; write it in each trigger",
                'harn.toml:7: defaults.weigth: unknown key; did you mean "weight"?',
            ],
        )
        self.assertEqual(len(complaints(f"defaults = 3\n{trigger('a')}")), 4)

    def test_problem_after_loading(self) -> None:
        """A problem with a value that is a default is at the default; with one that the trigger gives, there."""
        loaded = load(self.HEAD + trigger("a") + trigger("b", 'handler = "x:y"'))
        self.assertEqual(str(loaded.problem("a", "handler", "gone")), "harn.toml:4: defaults.handler: gone")
        self.assertTrue(str(loaded.problem("b", "handler", "gone")).endswith("triggers[1] (b): handler: gone"))
