"""Text that cannot steer a terminal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.visible import visible, visible_json, visible_lines


class VisibleTests(SynchronousTestCase):
    """What is shown of text that strangers wrote."""

    def test_escapes(self) -> None:
        """Control characters and marks of direction are written out; text in any script, emoji and tabs stay."""
        self.assertEqual(visible("\x1b[31m\x00\x7f\x9b\r\n"), "\\x1b[31m\\x00\\x7f\\x9b\\r\\n")
        self.assertEqual(visible("a\u202eb\u2066c\u2028d"), "a\\u202eb\\u2066c\\u2028d")
        self.assertEqual(
            visible("\ta \u00e9\u05d0 \U0001f468\u200d\U0001f469"), "\ta \u00e9\u05d0 \U0001f468\u200d\U0001f469"
        )

    def test_lines(self) -> None:
        """Only ends of line make lines; a text without any is one."""
        self.assertEqual(visible_lines("a\r\nb\x0bc\x85d\n"), ["a", "b\\x0bc\\x85d"])
        self.assertEqual(visible_lines(""), [""])

    @given(st.text())
    def test_never_a_control_character(self, text: str) -> None:
        """Nothing of any text is left that a terminal obeys."""
        for line in (visible(text), *visible_lines(text)):
            self.assertFalse([each for each in line if each != "\t" and (ord(each) < 32 or 127 <= ord(each) < 160)])

    @given(st.text())
    def test_json(self, text: str) -> None:
        """JSON says the same as before."""
        shown = visible_json(json.dumps(text, ensure_ascii=False))
        self.assertEqual(json.loads(shown), text)
        self.assertFalse([each for each in shown if ord(each) < 32 or 127 <= ord(each) < 160])
