"""Excerpts: the line of a problem, and what is marked in it."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.reload import describe_problems
from harn.reload.excerpts import Excerpt, Excerpts, excerpt_of
from harn.reload.results import ProblemInfo

MANIFEST = """\
[[triggers]]
id = "gh"
handlr = "handlers:on_issue"
secrets = { signing_secret = "github/webhook-secret" }
match = { events = ["issues.*", 3] }
\tretry.backof = "linear"
"""


class ExcerptTests(SynchronousTestCase):
    """One excerpt, out of a text."""

    def marked(self, line: int, where: str, source: str = MANIFEST) -> str:
        """Return the marked text."""
        found = excerpt_of(source, line, where)
        assert found is not None
        return found.text[found.start : found.start + found.length]

    def test_marks_the_key(self) -> None:
        """The last key of a problem's place is marked, in a table, inline, dotted, or with an index."""
        for line, where, marked in (
            (3, "triggers[0] (gh): handlr", "handlr"),
            (4, "triggers[0] (gh): secrets.signing_secret", "signing_secret"),
            (4, "triggers[0] (gh): secrets", "secrets"),
            (5, "triggers[0] (gh): match.events[1]", "events"),
            (6, "triggers[0] (gh): retry.backof", "backof"),
        ):
            self.assertEqual(self.marked(line, where), marked, where)

    def test_marks_the_column(self) -> None:
        """A column is one character, the last one at most: syntax may end too early."""
        self.assertEqual(self.marked(3, "column 3"), "n")
        self.assertEqual(self.marked(3, "column 900"), '"')
        self.assertEqual(excerpt_of("a = 1\nx = [ \n\n", 4, "column 1"), Excerpt(2, "x = [ ", 4, 1))
        self.assertIsNone(excerpt_of("\n\n", 2, "column 1"))

    def test_wide_characters(self) -> None:
        """The carets stand below what they mark, also after characters that take two columns, or none."""
        found = excerpt_of('match = { a\u0301 = "\u65e5\u672c", handlr = 1 }\n', 1, "handlr")
        assert found is not None
        self.assertEqual(list(found.lines())[1], f"      | {' ' * 22}^^^^^^")

    def test_ends_of_lines(self) -> None:
        """Lines end where TOML and Python end them, and nowhere else."""
        self.assertEqual(self.marked(3, "handlr", 'id = "a\u2028b\x85c"\r\n\nhandlr = 1\n'), "handlr")

    def test_marks_the_line_otherwise(self) -> None:
        """What is missing, or has no place, marks the line without its indentation."""
        self.assertEqual(self.marked(1, "triggers[0] (gh): handler"), "[[triggers]]")
        self.assertEqual(self.marked(6, ""), 'retry.backof = "linear"')

    def test_no_such_line(self) -> None:
        """A line that is not there any more, or is empty, has no excerpt."""
        for source, line in ((MANIFEST, 7), (MANIFEST, 0), ("\n  \n", 2)):
            self.assertIsNone(excerpt_of(source, line))

    def test_carets_are_below(self) -> None:
        """A tab, and what could steer a terminal, take as many cells in the line as before the carets."""
        found = excerpt_of('\tx\x1b = "a\x9b"; y = 1', 1, "y")
        assert found is not None
        line, carets = found.lines()
        self.assertEqual(line, '    1 |     x\\x1b = "a\\x9b"; y = 1')
        self.assertEqual(line.index("y"), carets.index("^"))

    def test_long_line(self) -> None:
        """Of a line as long as a file, the part around what is marked is shown."""
        found = excerpt_of("a = [" + "0, " * 5000 + "], key = 1, " + "z" * 5000, 1, "key")
        assert found is not None
        line, carets = found.lines()
        self.assertLess(len(line), 200)
        self.assertEqual(line[carets.index("^") :][:7], "key = 1")


class ProblemTests(SynchronousTestCase):
    """The source of problems, out of files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.manifest = self.folder.absolute() / "harn.toml"
        self.manifest.write_text(MANIFEST)

    def said(self, problem: ProblemInfo) -> list[str]:
        """Return the lines of a problem of a server that serves the manifest."""
        ((_, *source),) = describe_problems([problem], Excerpts(str(self.manifest)))
        return source

    def test_the_manifest_by_its_name(self) -> None:
        """A manifest is read by its path, whatever relative name the server was started with; no other file is."""
        said = ['    3 | handlr = "handlers:on_issue"', "      | ^^^^^^"]
        for name in ("harn.toml", "conf/harn.toml", str(self.manifest)):
            self.assertEqual(self.said(ProblemInfo(file=name, line=3, where="handlr", message="wrong")), said)
        for name in ("environment", "other.toml"):
            self.assertEqual(self.said(ProblemInfo(file=name, line=3, message="wrong")), [])

    def test_an_included_file(self) -> None:
        """A file that the manifest includes is found beside it, whatever its name begins with."""
        part = self.folder / "triggers.d" / "harn.toml"
        part.parent.mkdir()
        part.write_text("# one\n[[triggers]]\n")
        for name in ("triggers.d/harn.toml", "conf/triggers.d/harn.toml"):
            shown = self.said(ProblemInfo(file=name, line=2, message="wrong"))
            self.assertEqual([line.strip() for line in shown][:1], ["2 | [[triggers]]"])

    def test_code(self) -> None:
        """The line of code that cannot be imported is shown below the key that names it, with its own place."""
        code = self.folder.absolute() / "handlers.py"
        code.write_text("import os\nraise RuntimeError\n")
        problem = ProblemInfo(file="harn.toml", line=3, where="handlr", message="fails", code=f"{code}:2")
        self.assertEqual(self.said(problem)[2:], [f"  {code}:2", "    2 | raise RuntimeError", "      | " + "^" * 18])

    def test_syntax_error(self) -> None:
        """Code that is the place itself is shown once, with its column."""
        code = self.folder.absolute() / "handlers.py"
        code.write_text("def f(:\n")
        problem = ProblemInfo(file=str(code), line=1, message="SyntaxError", code=f"{code}:1:7")
        self.assertEqual(self.said(problem), ["    1 | def f(:", "      |       ^"])

    def test_for_others(self) -> None:
        """Readers from elsewhere get manifests and code, without the values of keys that look secret."""
        others = Excerpts(str(self.manifest), is_for_others=True)
        key = self.folder.absolute() / "keys.txt"
        key.write_text("s3cret\n")
        self.assertEqual(list(others.lines(ProblemInfo(file=str(key), line=1, message="wrong"))), [])
        for line in (
            'signing_secret = "s3cret"',
            'secrets = { "token" = "s3cret" }',
            'url_secret="s3cret',
            'smtp.password = """s3cret',
        ):
            self.manifest.write_text(line + "\n")
            for where in ("", "triggers[0]: token", "column 30"):
                found = list(
                    Excerpts(str(self.manifest), is_for_others=True).lines(
                        ProblemInfo(file="harn.toml", line=1, where=where, message="wrong")
                    )
                )
                self.assertEqual(len(found), 2, line)
                self.assertNotIn("s3cret", found[0])
                self.assertIn("[redacted]", found[0])

    def test_changed_since(self) -> None:
        """A file that was changed after its problem was found is not shown."""
        changed_at = self.manifest.stat().st_mtime
        problem = ProblemInfo(file="harn.toml", line=3, message="wrong")
        for since, number in ((changed_at, 2), (changed_at - 1, 0)):
            self.assertEqual(len(list(Excerpts(str(self.manifest), since).lines(problem))), number)

    def test_unreadable(self) -> None:
        """A file that is gone, a pipe, or a problem without a line: no excerpt, and no wait."""
        pipe = self.folder.absolute() / "pipe"
        os.mkfifo(pipe)
        for file in (str(pipe), str(self.folder.absolute() / "gone.py"), str(self.folder.absolute())):
            self.assertEqual(self.said(ProblemInfo(file=file, line=1, message="wrong", code=UNSET)), [])
        self.assertEqual(self.said(ProblemInfo(file="harn.toml", message="wrong")), [])

    def test_elsewhere(self) -> None:
        """Without files of this machine nothing is read."""
        problem = ProblemInfo(file=str(self.manifest), line=3, message="wrong")
        self.assertEqual([len(said) for said in describe_problems([problem])], [1])
