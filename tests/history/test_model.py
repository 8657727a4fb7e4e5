"""Stored generations, for people."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.history.operations import describe_history, describe_recorded, source_text
from harn.store.generations import GenerationRecord
from harn.vm.bundle import Module, make_bundle

RECORD = GenerationRecord(
    number=7,
    digest="sha256:7",
    bundle_id="sha256:b",
    source="cli",
    actor="key:1",
    adopted_at=0.5,
    manifest_digest="sha256:m",
    recalled=3,
    reason="not confirmed in time",
    summary={"modified": ["gh"]},
)


def module(name: str, source: bytes) -> Module:
    """Make a module of a bundle."""
    return Module(name=name, path=f"/app/{name}.py", source=source, is_package=False)


def history(*given: Any) -> Any:
    """Describe generations; give them as JSON."""
    return msgspec.json.decode(msgspec.json.encode(describe_history(*given)))


def recorded(*given: Any, sources: bool) -> Any:
    """Describe one with its content; give it as JSON."""
    return msgspec.json.decode(msgspec.json.encode(describe_recorded(*given, sources=sources)))


class HistoryTests(SynchronousTestCase):
    """The list."""

    def test_entry(self) -> None:
        """An entry has what was recorded, and whether it is live."""
        [entry, other] = history([RECORD, replace(RECORD, number=6, adopted_at=None, recalled=None)], 7)
        self.assertEqual(
            entry,
            {
                "generation": 7,
                "digest": "sha256:7",
                "source": "cli",
                "actor": "key:1",
                "adopted_at": "1970-01-01T00:00:00.500Z",
                "live": True,
                "recalled": 3,
                "reason": "not confirmed in time",
                "summary": {"modified": ["gh"]},
            },
        )
        self.assertEqual((other["live"], other["adopted_at"], other["recalled"]), (False, None, None))

    def test_nothing_is_live_without_a_server(self) -> None:
        """Where no server runs no generation is live."""
        self.assertEqual([entry["live"] for entry in history([RECORD], None)], [False])


class ContentTests(SynchronousTestCase):
    """One generation with its content."""

    BUNDLE = make_bundle({name: module(name, f"x = {name!r}\n".encode()) for name in ("b", "a")})

    def test_content(self) -> None:
        """The manifest's text and the modules, in order of their names, follow what history says."""
        shown = recorded(RECORD, "[[triggers]]\n", self.BUNDLE, 7, sources=False)
        [entry] = history([RECORD], 7)
        self.assertEqual({name: shown[name] for name in entry}, entry)
        self.assertEqual((shown["manifest_digest"], shown["manifest"]), ("sha256:m", "[[triggers]]\n"))
        digest = self.BUNDLE.modules["a"].digest
        self.assertEqual(shown["modules"][0], {"name": "a", "path": "/app/a.py", "digest": digest})
        self.assertEqual([each["name"] for each in shown["modules"]], ["a", "b"])

    def test_sources(self) -> None:
        """The text of modules comes only when it is asked for."""
        shown = recorded(RECORD, "", self.BUNDLE, None, sources=True)
        self.assertEqual([each["source"] for each in shown["modules"]], ["x = 'a'\n", "x = 'b'\n"])

    def test_encodings(self) -> None:
        """A module is decoded by the encoding that it declares; line ends stay, a wrong declaration does not fail."""
        for source, text in (
            (b"# coding: latin-1\r\nx = '\xe9'\r\n", "# coding: latin-1\r\nx = '\u00e9'\r\n"),
            (b"\xef\xbb\xbfx = '\xc3\xa9'", "x = '\u00e9'"),
            (b"# coding: nonsense\n\xff", "# coding: nonsense\n\ufffd"),
            (b"\xff", "\ufffd"),
            (b"", ""),
        ):
            self.assertEqual(source_text(source), text, source)

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=40), st.sampled_from((b"", b"# coding: utf-7\n", b"# coding: unicode_escape\n")))
    def test_any_bytes_make_json(self, source: bytes, first: bytes) -> None:
        """Whatever a module holds, its text is text that JSON can carry."""
        msgspec.json.encode(source_text(first + source))
