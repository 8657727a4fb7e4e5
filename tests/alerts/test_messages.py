"""Tests of `harn.alerts.messages`."""

from __future__ import annotations

from msgspec import structs
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.alerts.messages import write_message
from harn.alerts.model import TEST, Notice
from tests.alerts.examples import NOTICE, ORIGIN, rule

CONSOLE = "https://harn.test/console"


class LinkTests(SynchronousTestCase):
    """Links to the console."""

    def link(self, on: str, notice: Notice = NOTICE, url: str | None = f"{CONSOLE}/") -> str | None:
        """Write a message; return its link, which is in its text, too."""
        message = write_message(rule(on), notice, replace(ORIGIN, console_url=url))
        page = message.document.console
        self.assertEqual("Console: " in message.text, page is not None)
        self.assertIn(page or "", message.text)
        return page

    def test_pages(self) -> None:
        """Each alert links to the page on which to look closer."""
        some = structs.replace(NOTICE, event_id=None)
        self.assertEqual(self.link("dead_letter"), f"{CONSOLE}/deliveries/trigger_evt_1")
        self.assertEqual(self.link("dead_letter", some), f"{CONSOLE}/dead-letters")
        self.assertEqual(self.link("dead_letter", structs.replace(some, status=TEST)), f"{CONSOLE}/triggers/gh")
        self.assertEqual(self.link("reload_failed", some), f"{CONSOLE}/reloads")
        for on in ("circuit_open", "silent", "late"):
            self.assertEqual(self.link(on, some), f"{CONSOLE}/triggers/gh")

    def test_without(self) -> None:
        """Without an address of the console there is no link."""
        self.assertIsNone(self.link("dead_letter", url=None))
