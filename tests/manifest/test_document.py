"""Parsing by parts: always what parsing whole gives."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ManifestInvalid
from harn.manifest.document import HEADER, Malformed, cut, parse, parse_head, parse_part, parse_whole
from harn.testing.manifests import manifest_text
from tests.manifest.rules import UNHURRIED, load

NASTY_LINES = [
    "[[triggers]]",
    "[[triggers]] # note",
    "[[triggers]]x",
    " [[triggers]]",
    '[["triggers"]]',
    "[[ triggers ]]",
    "[triggers]",
    "[triggers.retry]",
    "[[triggers.sources]]",
    "[triggers.a.b]",
    "[orchestrator]",
    "[orchestrator.drain]",
    "triggers = []",
    "triggers = [{}]",
    "triggers.x = 1",
    "x = '''",
    'x = """',
    "'''",
    '"""',
    "x = [",
    "]",
    "x = { a = 1,",
    "}",
    "# '''",
    '# """ [[triggers]]',
    "id = 'a'",
    'id = "é\\u00e9"',
    "a.b = 1",
    "a.c = 2",
    "max = 1",
    "max = 1 # one",
    'y = "\\',
    "d = 1979-05-27T07:32:00Z",
    "",
    "\r",
    "\t",
    "é",
    "=",
]
PIECES = st.lists(st.sampled_from(NASTY_LINES), max_size=14)
VALID = (
    'x = 1\n[orchestrator]\nallow_empty = true\n[[triggers]]\nid = "a"\nnote = """\n[[triggers]]\nid = 1\n"""\n'
    "[triggers.retry]\nmax = 3\n[[triggers.sources]]\nkind = 'x'\n[[triggers]]\nid = '''\n[[triggers]]'''\n"
    'list = [\n"a", # [[triggers]]\n"b"]\n\n[[triggers]]\nid = "ü"\nt = { a = 1, b.c = "]]" }\n'
)


class PartsTests(SynchronousTestCase):
    """`parse` against `parse_whole`."""

    def check(self, text: str) -> None:
        """Assert that both ways give the same values, or both refuse the text for the same reason."""
        by_parts, whole = parse(text), parse_whole(text)
        if isinstance(whole, Malformed) or isinstance(by_parts, Malformed):
            self.assertEqual(by_parts, whole)
        else:
            self.assertEqual((by_parts.head, by_parts.triggers), (whole.head, whole.triggers))

    @UNHURRIED
    @given(PIECES, st.sampled_from(["", "\n"]))
    @example(["x = '''", "[[triggers]]", "'''"], "")
    @example(["[[triggers]]", "x = [", "[[triggers]]", "]"], "\n")
    @example(["[[triggers]]", "[orchestrator]", "[[triggers]]", "[orchestrator.drain]"], "\n")
    @example(["[triggers]", "[[triggers]]"], "\n")
    @example(["triggers.x = 1", "[[triggers]]"], "\n")
    @example(["[[triggers]]", "\r"], "")
    def test_any_lines(self, lines: list[str], end: str) -> None:
        """Lines that try to hide a cut from the parser, or the parser from a cut, do not tell the two ways apart."""
        self.check("\n".join(lines) + end)

    @UNHURRIED
    @given(st.integers(0, len(VALID)))
    def test_truncated(self, length: int) -> None:
        """A manifest that is cut off anywhere parses the same either way, or is refused the same."""
        self.check(VALID[:length])

    @UNHURRIED
    @given(st.text(alphabet="[]triges\"'#=.\n\\ x1{},", max_size=60))
    def test_any_text(self, text: str) -> None:
        """So does any text of TOML's own characters."""
        self.check(text)

    def test_usual_manifest_is_parsed_by_parts(self) -> None:
        """A manifest of ordinary triggers, with sub-tables and comments, needs no whole parse."""
        parsed = parse(manifest_text(3) + "# end\n")
        assert not isinstance(parsed, Malformed)
        self.assertTrue(parsed.by_parts)
        self.assertEqual([trigger["id"] for trigger in parsed.triggers], ["t0", "t1", "t2"])

    def test_what_cannot_be_cut(self) -> None:
        """A header in a string, tables after the triggers and inline triggers are parsed whole."""
        for text in (
            '[[triggers]]\nx = """\n[[triggers]]\n"""\n',
            "[[triggers]]\nid = 1\n[orchestrator]\n",
            "triggers = [{ id = 1 }]\n",
            "[[triggers]]\n[[ triggers ]]\n",
        ):
            parsed = parse(text)
            assert not isinstance(parsed, Malformed)
            self.assertFalse(parsed.by_parts, text)

    def test_pieces_make_the_text_again(self) -> None:
        """Nothing is lost by cutting."""
        pieces = cut(VALID)
        self.assertEqual(("\n" + HEADER).join([pieces.lead, *pieces.parts]), "\n" + VALID)

    def test_pieces_that_are_not_whole(self) -> None:
        """A head that speaks of triggers, and a part that is more or less than one trigger, say so."""
        self.assertIsNone(parse_head("[triggers]\n"))
        self.assertIsNone(parse_head("x ="))
        self.assertIsNone(parse_part("\nx = '''\n"))
        self.assertIsNone(parse_part("\n[other]\n"))
        self.assertEqual(parse_part("\nid = 1\n[triggers.retry]\nmax = 2"), {"id": 1, "retry": {"max": 2}})

    def test_deep_nesting_is_no_crash(self) -> None:
        """Brackets without end are refused like any malformed text."""
        self.assertIsInstance(parse("x = " + "[" * 5000), Malformed)


TRIGGERS = st.builds(
    lambda identity, limit, note: (
        f'[[triggers]]\nid = "t{identity}"\nkind = "webhook"\nprovider = "github"\nhandler = "f"\n'
        f'match = {{ events = [] }}\nsecrets = {{ signing_secret = "github/s" }}\n{note}'
        f"[triggers.retry]\nmax = {limit}\n"
    ),
    st.integers(0, 4),
    st.integers(99, 101),
    st.sampled_from(["", "# '''\n", 'when = """\nm:f"""\n', 'filter = """event\n[[triggers]]\n"""\n', "# é\n\n"]),
)
MANIFESTS = st.builds(
    lambda head, triggers, tail, newline: (head + "".join(triggers) + tail).replace("\n", newline),
    st.sampled_from(["", "[orchestrator]\nallow_empty = true\n", "[package]\nname = 'x'\n", "oops = 1\n", "x = '\n"]),
    st.lists(TRIGGERS, max_size=4),
    st.sampled_from(["", "[exports]\nm = 'm.py'\n", "[triggers.match]\n", "'''"]),
    st.sampled_from(["\n", "\r\n"]),
)


class ReuseTests(SynchronousTestCase):
    """Loading with a previous manifest."""

    @UNHURRIED
    @given(MANIFESTS, MANIFESTS)
    def test_what_went_before_makes_no_difference(self, old: str, new: str) -> None:
        """After any earlier manifest a text loads to what it loads to on its own, or has the same problems."""
        try:
            previous = load(old)
        except ManifestInvalid:
            previous = None
        try:
            alone = load(new)
        except ManifestInvalid as error:
            again = self.assertRaises(ManifestInvalid, load, new, previous)
            self.assertEqual((again.stage, again.problems), (error.stage, error.problems))
        else:
            self.assertEqual(load(new, previous).manifest, alone.manifest)
