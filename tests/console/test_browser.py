"""
The console in a real browser: Chromium of the system, driven by Playwright.

Screenshots of every page are left in the folder whose absolute path is in ``HARN_SCREENSHOTS``.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harn.testing.manifests import trigger_text
from harn.testing.server import API_KEY, ServerProcess, wait_until
from tests.integration.case import SharedServerCase

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = (
    "there is no Chromium; install it with: apt-get install chromium"
    if CHROMIUM is None
    else "Playwright or axe is not installed; install them with: pip install 'harn[test]'"
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None
    else ""
)
LOOKS = ((1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark"))
"""Width, height and colours of the screenshots."""
PATIENCE = 60_000
"""Milliseconds."""
FAILING = """
def failing(event, context):
    print("before <b>it</b> fails")
    raise ValueError("no <script>alert(1)</script>")
"""


class BrowserCase(SharedServerCase):
    """A server with deliveries that are done and dead, and a page of a browser that has signed in."""

    def setUp(self) -> None:
        if MISSING:
            if os.environ.get("CI") == "true":
                self.fail(MISSING)
            raise SkipTest(MISSING)
        super().setUp()
        self.wrong: list[str] = []
        self.requested: set[str] = set()
        self.chromium = self.start_chromium()

    def start_chromium(self) -> Any:
        """Start a browser, which ends with the test: until then, no other test can run a loop of asyncio."""
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright().start()
        self.addCleanup(playwright.stop)
        # Without a sandbox, which a root user in a container cannot have: it loads pages of this test alone.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        self.addCleanup(browser.close)
        return browser

    def prepare(self) -> ServerProcess:
        """Start the server on two triggers, and have one delivery of each ended."""
        self.write_handlers(more=FAILING)
        self.write_manifest(trigger_text("gh"), trigger_text("bad", handler="handlers:failing", extra="retry.max = 1"))
        server = self.serve()
        self.done = server.deliver("/triggers/gh", delivery="done").json()["event_id"]
        self.dead = server.deliver("/triggers/bad", delivery="dead").json()["event_id"]
        for event_id, state in ((self.dead, "dead"), (self.done, "done")):
            wait_until(partial(self.is_in, server, event_id, state), f"a delivery that is {state}")
        return server

    @staticmethod
    def is_in(server: ServerProcess, event_id: str, state: str) -> bool:
        """Return whether a delivery has this state."""
        return bool(server.admin("GET", f"/admin/deliveries/{event_id}").json()["state"] == state)

    def open(self, server: ServerProcess, look: tuple[int, int, str] = LOOKS[0], **more: Any) -> Any:
        """Open a page and sign in."""
        width, height, colours = look
        context = self.chromium.new_context(
            base_url=server.url, viewport={"width": width, "height": height}, color_scheme=colours, **more
        )
        self.addCleanup(context.close)
        page = context.new_page()
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.requested.add(request.url.split("/console")[0]))
        page.goto("/console/")
        page.fill("#key", API_KEY)
        page.click("text=Sign in")
        page.wait_for_url("**/console/")
        return page

    def assert_clean(self, server: ServerProcess) -> None:
        """Fail when the console of the browser has an error, or anything was fetched from elsewhere."""
        self.assertEqual(self.wrong, [])
        self.assertEqual(self.requested, {server.url})


class PageTests(BrowserCase):
    def test_every_page(self) -> None:
        """Every page fits its screen, in both colours, without a violation that axe finds; screenshots are kept."""
        from axe_playwright_python.sync_playwright import Axe

        server = self.prepare()
        folder = Path(os.environ.get("HARN_SCREENSHOTS") or os.path.abspath(self.mktemp()))
        self.assertTrue(folder.is_absolute(), "HARN_SCREENSHOTS must be an absolute path")
        folder.mkdir(parents=True, exist_ok=True)
        pages = {
            "now": "/console/",
            "triggers": "/console/triggers",
            "trigger": "/console/triggers/gh",
            "deliveries": "/console/deliveries",
            "delivery": f"/console/deliveries/{self.dead}",
            "dead-letters": "/console/dead-letters",
            "dead-letters-change": "/console/dead-letters/change?operation=replay&trigger=bad",
            "reloads": "/console/reloads",
            "generation": "/console/reloads/1",
            "servers": "/console/servers",
            "nothing-to-do": "/console/triggers?busy=true",
            "login": "/console/login",
        }
        axe = Axe()
        for look in LOOKS:
            page = self.open(server, look)
            for name, path in pages.items():
                if name == "login":
                    page.context.clear_cookies()
                page.goto(path)
                page.screenshot(path=folder / f"{name}-{look[0]}-{look[2]}.png", full_page=True)
                width = page.evaluate("document.documentElement.scrollWidth")
                self.assertLessEqual(width, look[0], f"{name} at {look}")
                if look in (LOOKS[0], LOOKS[3]):
                    found = axe.run(page).response["violations"]
                    said = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
                    self.assertEqual(said, [], f"{name} at {look}")
        expected = {f"{name}-{look[0]}-{look[2]}.png" for name in pages for look in LOOKS}
        self.assertLessEqual(expected, {path.name for path in folder.glob("*.png")})
        self.assert_clean(server)

    def test_hostile_text_is_text(self) -> None:
        """What handlers and senders write stays text in a real browser; times are those of the reader's zone."""
        server = self.prepare()
        page = self.open(server, timezone_id="Asia/Kathmandu")
        page.goto(f"/console/deliveries/{self.dead}")
        self.assertIn("no <script>alert(1)</script>", page.inner_text("main"))
        self.assertIn("before <b>it</b> fails", page.inner_text("main"))
        shown = page.locator("main time").first
        self.assertRegex(shown.inner_text(), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+05:45$")
        self.assertRegex(shown.get_attribute("title"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \(UTC\)$")
        self.assert_clean(server)


class ActionTests(BrowserCase):
    def test_live(self) -> None:
        """The first page follows deliveries and a reload by its stream, without being loaded again or asking."""
        from playwright.sync_api import expect

        server = self.prepare()
        page = self.open(server)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        before = page.locator(".tiles li:last-child strong").inner_text()
        page.evaluate("window.isStill = true")
        for number in range(30):
            server.deliver("/triggers/gh", delivery=f"live-{number}")
        rate = page.locator(".tiles strong").first
        expect(rate).to_have_text(re.compile(r"^\s*(0\.[4-9]|[1-9])"), timeout=PATIENCE)
        self.write_manifest(trigger_text("gh"))
        self.assertEqual(server.reload().status, 200)
        generation = str(int(before) + 1)
        expect(page.locator(".tiles li:last-child strong")).to_have_text(generation, timeout=PATIENCE)
        self.assertTrue(page.evaluate("window.isStill"))
        self.assertEqual([url for url in asked if "part=1" in url], [])
        self.assertLessEqual(sum("stream=1" in url for url in asked), 1)
        with page.expect_request(f"{server.url}/console/deliveries?stream=1", timeout=PATIENCE):
            page.goto("/console/deliveries")
        self.assert_clean(server)

    def test_without_a_stream(self) -> None:
        """Where the server refuses a stream the page asks for its part; when the session has ended, for the key."""
        from playwright.sync_api import expect

        server = self.prepare()
        page = self.open(server)
        page.route("**/*stream=1*", lambda route: route.fulfill(status=503, body="enough"))
        page.goto("/console/deliveries")
        event_id = server.deliver("/triggers/gh", delivery="polled").json()["event_id"]
        expect(page.locator(f"text={event_id}")).to_be_visible(timeout=PATIENCE)
        page.route("**/*part=1*", lambda route: route.fulfill(status=503, body="the event log cannot be reached."))
        stale = page.locator("#stale")
        expect(stale).to_contain_text(
            "the event log cannot be reached. What you see is as it was at 20", timeout=PATIENCE
        )
        page.unroute("**/*part=1*")
        expect(stale).to_be_hidden(timeout=PATIENCE)
        page.context.clear_cookies()
        page.wait_for_url("**/console/login?next=*", timeout=PATIENCE)
        self.assertEqual({text.partition(" the server")[0] for text in self.wrong}, {"Failed to load resource:"})

    def test_actions_without_javascript(self) -> None:
        """Reading, a replay, a pause and signing out are plain links and forms."""
        server = self.prepare()
        page = self.open(server, java_script_enabled=False)
        page.click("nav >> text=Deliveries")
        page.locator(f"a[href$='{self.dead}']").first.click()
        page.click("button:has-text('Replay')")
        self.assertIn("Replayed as trigger_evt_", page.inner_text(".notice.good"))
        page.goto("/console/triggers/gh")
        page.click("button:text-is('Pause')")
        self.assertIn("Paused:", page.inner_text(".notice.good"))
        page.click("button:text-is('Resume')")
        self.assertIn("Resumed.", page.inner_text(".notice.good"))
        page.click("text=Sign out")
        page.wait_for_url("**/console/login")
        page.goto("/console/deliveries")
        self.assertIn("/console/login", page.url)
        self.assert_clean(server)

    def test_keyboard(self) -> None:
        """The first key leads past the bar, and what has the focus can be seen."""
        server = self.prepare()
        page = self.open(server)
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.textContent"), "Skip to the content")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        self.assertEqual(style, "solid")
        self.assert_clean(server)
