"""Reading the fields of a body, small or large."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors import bodies
from harn.errors import PayloadInvalid

PADDING = b" " * bodies.BUILT
"""Makes a body a large one, of which only what is asked for is built."""


class ReadTests(SynchronousTestCase):
    """Small and large bodies mean the same."""

    def both(self, text: bytes) -> tuple[bodies.Document, bodies.Document]:
        """Read a body as it is, and as a large one."""
        return bodies.read_json(text), bodies.read_json(PADDING + text)

    def test_at(self) -> None:
        """A path leads through members; where it leads nowhere there is nothing."""
        text = b'{"a": {"b": {"c": "x"}}, "n": 17, "t": true, "z": null, "l": [1], "a2": "\\u00e9"}'
        for document in self.both(text):
            self.assertTrue(document.is_object)
            for path, expected in (
                (("a", "b", "c"), "x"),
                (("n",), 17),
                (("t",), True),
                (("z",), None),
                (("a2",), "\u00e9"),
                (("none",), None),
                (("n", "x"), None),
                (("l", "x"), None),
                (("a", "b", "c", "d"), None),
            ):
                self.assertEqual(document.at(*path), expected, path)

    def test_other_values(self) -> None:
        """A value other than an object has no members."""
        for text in (b"[1]", b'"text"', b"1", b"null"):
            for document in self.both(text):
                self.assertFalse(document.is_object)
                self.assertIsNone(document.at("a"))
        for text in (b"[1]", PADDING + b"null"):
            with self.assertRaises(PayloadInvalid):
                bodies.read_object(text)

    def test_refused(self) -> None:
        """Text that no parser can hold, and invalid JSON, is refused at every size; the reason quotes nothing."""
        for text, reason in (
            (b'{"a": NaN}', "malformed"),
            (b'{"a": 1e999}', "range"),
            (b'{"a": 1.5E+400 }', "range"),
            (b'{"a": -1e00000000000000000400}', "range"),
            (b'{"a": [{"b": 1e400}]}', "range"),
            (b'{"a": "1e400", "b": 7E999\n}', "range"),
            (b"1e999", "range"),
            (b'{"a": ' + b"9" * 250 + b"e99}", "range"),
            (b'{"a": ' + b"9" * 5000 + b"}", "range"),
            (b'{"a": "\xff"}', "UTF-8"),
            (b'{"a": [{"\xff": 1}]}', "UTF-8"),
            (b'{"a": "\\ud80"}', ""),
            (b"[" * 100_000 + b"]" * 100_000, "nested"),
            (b"{} {}", "malformed"),
            (b"", ""),
        ):
            for each in (text, PADDING + text):
                error = self.assertRaises(PayloadInvalid, bodies.read_json, each)
                self.assertIn(reason, str(error))
                self.assertLess(len(str(error)), 200)
        self.assertIn("UTF-16", str(self.assertRaises(PayloadInvalid, bodies.read_json, "{}".encode("utf-16-le"))))

    def test_taken(self) -> None:
        """What only looks out of range is taken, and so is what RFC 8259 allows."""
        for text in (
            b'{"a": 1e308}',
            b'{"a": 1e-999}',
            b'{"a": ' + b"9" * 300 + b"}",
            b'{"a": "of 1e999, or so"}',
            b'{"a": "7fd1a60b01f91b314f59955a4e1e1234", "b": "e1e999"}',
            b'{"a": "' + b"9" * 5000 + b'"}',
            b'{"a": "\\" , 1e999, "}'.replace(b'\\" ', b'\\\\\\" '),
            b'{"a": "\\ud83d"}',
            b'{"a": 1, "a": 2}',
            b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}",
        ):
            for document in self.both(text):
                self.assertIsNotNone(document.at("a"))
        self.assertEqual(bodies.read_json(b"\xef\xbb\xbf" + PADDING + b'{"a": "\\udead"}').at("a"), "\ufffd")

    def test_many_members(self) -> None:
        """Of a large body with very many members only the one that is asked for is built."""
        text = b'{"a": "x", ' + b", ".join(b'"k%d": 1' % number for number in range(100_000)) + b"}"
        tracemalloc.start()
        try:
            document = bodies.read_json(text)
            self.assertEqual((document.at("a"), document.at("k99999"), document.at("none")), ("x", 1, None))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 4 * len(text))

    def test_half_a_surrogate_pair_in_a_name(self) -> None:
        """Names are read at every size, those that are not asked for, too."""
        for document in self.both(b'{"\\ud83d": 1, "a": "x"}'):
            self.assertEqual((document.at("a"), document.at("\ufffd")), ("x", 1))

    def test_large_value(self) -> None:
        """A large value of a large body is not built; it counts neither as text nor as absent."""
        value = bodies.read_json(PADDING + b'{"a": [' + b"1," * 5000 + b"1]}").at("a")
        self.assertIsInstance(value, msgspec.Raw)
        self.assertIsNone(bodies.word(value))
        self.assertIsNone(bodies.identifier(value))


class FieldTests(SynchronousTestCase):
    def test_identifier(self) -> None:
        """Words and whole numbers identify; nothing else does."""
        cases: tuple[tuple[Any, str | None], ...] = (
            ("x", "x"),
            (17, "17"),
            (-(10**30), "-1" + "0" * 30),
            (10**300, None),
            (True, None),
            (1.0, None),
            ("", None),
            ("x" * 257, None),
            ([], None),
        )
        for value, expected in cases:
            self.assertEqual(bodies.identifier(value), expected)

    def test_form(self) -> None:
        """The first of a repeated field counts; empty ones are kept; too many, and a malformed form, are refused."""
        self.assertEqual(bodies.read_form(b"a=1&b=&a=2&c=%C3%A9+x"), {"a": "1", "b": "", "c": "\u00e9 x"})
        for body in (b"{}", b"\xff=1", b"a=1&" * 200):
            with self.assertRaises(PayloadInvalid):
                bodies.read_form(body)

    def test_claims(self) -> None:
        """Media types of JSON are known in any spelling."""
        for name in ("application/json", " Application/JSON ;charset=x", "text/json", "application/vnd.github.v3+json"):
            self.assertTrue(bodies.claims_json({"content-type": name}), name)
        for name in (
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "application/json-seq",
        ):
            self.assertFalse(bodies.claims_json({"content-type": name}), name)
        self.assertFalse(bodies.claims_json({}))
