"""Signing in to the console, and the rules that every answer of it follows."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.auth.authenticator import Identity
from harn.auth.credentials import Credentials
from harn.auth.keys import NamedKey, digest_key, make_key
from harn.console import feature as console
from harn.console.attempts import MOST_ADDRESSES, MOST_FAILURES, MOST_RECORDED, WINDOW, Attempts
from harn.console.feature import cookie_of
from harn.console.reception import inside
from harn.console.sessions import LIFETIME, MOST, MOST_OF_KEY, MOST_OUTCOMES, Outcome, Sessions
from harn.manifest.settings import OrchestratorSettings
from harn.operations.model import Role
from harn.options import ServeOptions
from harn.orchestrator.features import features
from tests.console.world import HOST, KEY, TOKEN, ConsoleWorld

PAGES = (
    "/deliveries",
    "/deliveries/some-id",
    "/dead-letters",
    "/dead-letters/change?operation=replay",
    "/servers",
    "/nowhere",
)


class ConsoleCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = ConsoleWorld(Path(self.mktemp()))
        self.assertTrue(self.successResultOf(self.world.started).ok)


class SignInTests(ConsoleCase):
    def test_every_page_needs_a_session(self) -> None:
        """Who has not signed in is sent to the form, which leads back; parts of pages are 401; nothing is changed."""
        browser = self.world.browser()
        for page in PAGES:
            answer = browser.get(page)
            self.assertEqual(answer.status, 303, page)
            self.assertTrue(answer.headers["location"].startswith("/console/login?next=%2Fconsole%2F"), page)
        self.assertEqual(browser.get("/deliveries?part=1").status, 401)
        event_id = self.world.die()
        answer = browser.post(f"/deliveries/{event_id}/replay", {"csrf": "x"})
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/console/login?next=%2Fconsole%2F"))
        self.assertEqual(self.world.audited(), [])

    def test_key_makes_a_session(self) -> None:
        """A key or the token signs in: a cookie that scripts cannot read and other sites cannot use."""
        for key in (KEY, TOKEN, f"  {KEY}\n"):
            browser = self.world.browser()
            answer = browser.sign_in(key)
            self.assertEqual((answer.status, answer.headers["location"]), (303, "/console/deliveries"))
            name, *attributes = answer.headers["set-cookie"].split("; ")
            self.assertEqual(set(attributes), {"Path=/console", "Max-Age=43200", "HttpOnly", "SameSite=Strict"})
            self.assertGreaterEqual(len(name.partition("=")[2]), 43)
            self.assertIn("Deliveries", browser.page("/deliveries"))
            self.assertEqual(
                browser.get("/login?next=/console/dead-letters").headers["location"], "/console/dead-letters"
            )

    def test_wrong_key(self) -> None:
        """A wrong or empty key is 401, with the form again; both are recorded, without the key."""
        browser = self.world.browser()
        for key in ("wrong-key", "", "k\u00e4y", "x" * 5000):
            answer = browser.sign_in(key)
            self.assertEqual(answer.status, 401, key)
            self.assertIn(b"not accepted", answer.body)
            self.assertNotIn("set-cookie", answer.headers)
        browser.sign_in(KEY)
        found = [(each["operation"], each["actor"], each["outcome"]) for each in self.world.audited()]
        self.assertEqual(found[0], ("console.sign_in", "anonymous", "failed"))
        self.assertEqual(found[-1][0::2], ("console.sign_in", "done"))
        self.assertTrue(found[-1][1].startswith("key:"))
        self.assertEqual(self.world.audited()[0]["parameters"], {"address": "10.0.0.1"})
        self.assertNotIn("wrong-key", repr(self.world.audited()))

    def test_guessing_is_slow(self) -> None:
        """After 10 failures of a minute a wrong key of an address is 429; a right one signs in all the same."""
        browser = self.world.browser()
        for _ in range(MOST_FAILURES):
            self.assertEqual(browser.sign_in("wrong").status, 401)
        answer = browser.sign_in("wrong too")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "60"))
        self.assertEqual(len(self.world.audited()), MOST_FAILURES)
        self.assertEqual(self.world.browser("10.0.0.2").sign_in("wrong").status, 401)
        for key in (KEY, TOKEN):  # a proxy that is not trusted gives all users one address
            self.assertEqual(self.world.browser().sign_in(key).status, 303)
        self.assertEqual(browser.sign_in("wrong").status, 429)
        self.world.clock.advance(WINDOW)
        self.assertEqual(browser.sign_in("wrong").status, 401)

    def test_failures_of_many_addresses(self) -> None:
        """Senders from many addresses get 60 audit records a minute together; a sign-in is recorded all the same."""
        for number in range(MOST_RECORDED + 5):
            self.assertEqual(self.world.browser(f"10.0.1.{number}").sign_in("wrong").status, 401)
        self.assertEqual(len(self.world.audited()), MOST_RECORDED)
        self.assertEqual(self.world.browser().sign_in(KEY).status, 303)
        self.assertEqual(len(self.world.audited()), MOST_RECORDED + 1)
        self.world.clock.advance(WINDOW)
        self.world.browser("10.0.1.1").sign_in("wrong")
        self.assertEqual(len(self.world.audited()), MOST_RECORDED + 2)

    def test_addresses_behind_a_proxy(self) -> None:
        """Failures are counted by the address that a trusted proxy names, and by no other name of it."""
        self.world.site.apply(OrchestratorSettings(trusted_proxies=("10.0.0.0/8",)))
        browser = self.world.browser()
        for number in range(MOST_FAILURES):
            browser.sign_in("wrong", X_Forwarded_For=f"203.0.113.{number}, 198.51.100.7")
        self.assertEqual(browser.sign_in("wrong", X_Forwarded_For="198.51.100.7").status, 429)
        self.assertEqual(browser.sign_in("wrong", X_Forwarded_For="198.51.100.8").status, 401)

    def test_session_ends_with_its_key(self) -> None:
        """When a reload takes the key away the session ends; one of another key continues."""
        first, token = self.world.signed_in(), self.world.signed_in(TOKEN)
        self.world.credentials.replace(Credentials(keys=(b"second-key",)))
        self.assertEqual([each.get("/deliveries").status for each in (first, token)], [303, 200])
        self.world.credentials.replace(Credentials(keys=(KEY.encode(),)))
        self.assertEqual(first.get("/deliveries").status, 303)  # it has ended: it does not come back with the key

    def test_session_ends_by_time(self) -> None:
        """After 12 hours the session has ended."""
        browser = self.world.signed_in()
        self.world.clock.advance(LIFETIME - 1)
        self.assertEqual(browser.get("/deliveries").status, 200)
        self.world.clock.advance(1)
        self.assertEqual(browser.get("/deliveries").status, 303)

    def test_sign_out(self) -> None:
        """Signing out ends the session, also for a copy of the cookie."""
        browser, copy = self.world.signed_in(), self.world.browser()
        copy.cookies = dict(browser.cookies)
        answer = browser.act("/logout")
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/console/login"))
        self.assertIn("Max-Age=0", answer.headers["set-cookie"])
        self.assertEqual(copy.get("/deliveries").status, 303)
        self.assertEqual(self.world.audited()[-1]["operation"], "console.sign_out")

    def test_secure_behind_a_proxy_with_tls(self) -> None:
        """The cookie is ``Secure`` where a trusted proxy says that the browser speaks TLS, and by no other's word."""
        self.assertNotIn("Secure", self.world.browser().sign_in(KEY, X_Forwarded_Proto="https").headers["set-cookie"])
        self.world.site.apply(OrchestratorSettings(trusted_proxies=("10.0.0.1/32",)))
        answer = self.world.browser().sign_in(KEY, X_Forwarded_Proto="https", Origin=f"https://{HOST}")
        self.assertIn("; Secure", answer.headers["set-cookie"])

    def test_no_key_configured(self) -> None:
        """Where no key is set the form says how to set one, and that the token works."""
        self.world.credentials.replace(Credentials())
        page = self.world.browser().page("/login")
        for text in ("no API key yet", "HARN_ORCHESTRATOR_API_KEYS", "orchestrator/token", "--state-dir"):
            self.assertIn(text, page)
        self.assertEqual(self.world.browser().sign_in(TOKEN).status, 303)

    def test_link_from_elsewhere(self) -> None:
        """A link from another site comes without the cookie: the form asks for itself once more, and finds it."""
        browser = self.world.signed_in()
        cookies, browser.cookies = browser.cookies, {}
        location = browser.get("/deliveries", Sec_Fetch_Site="cross-site").headers["location"]
        page = browser.request("GET", location, Sec_Fetch_Site="cross-site").body.decode()
        again = "/console/login?again=1&amp;next=/console/deliveries"
        self.assertIn(f'http-equiv="refresh" content="0; url={again}"', page)
        browser.cookies = cookies
        answer = browser.request("GET", again.replace("&amp;", "&"), Sec_Fetch_Site="same-origin")
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/console/deliveries"))
        browser.cookies = {}
        self.assertNotIn(b"http-equiv", browser.get("/login?again=1", Sec_Fetch_Site="cross-site").body)


class RuleTests(ConsoleCase):
    def test_headers(self) -> None:
        """Every answer keeps browsers from other sites, frames and caches, whatever its status."""
        browser = self.world.signed_in()
        answers = [browser.get(page) for page in (*PAGES, "/login", "", "//x")]
        answers += [self.world.browser().get("/deliveries"), self.world.browser().sign_in("wrong")]
        answers += [browser.post("/deliveries/x/replay", {}), browser.request("PUT", "/console/deliveries")]
        self.assertEqual({each.status for each in answers}, {200, 303, 401, 403, 404, 405})
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            self.assertTrue(policy.startswith("default-src 'none';"), answer)
            self.assertNotIn("unsafe", policy)
            self.assertNotIn("*", policy)
            self.assertEqual(answer.headers["x-frame-options"], "DENY")
            self.assertEqual(answer.headers["referrer-policy"], "same-origin")
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_assets(self) -> None:
        """Style sheet, script and icon are the package's, without a session; pages hold no code and no style."""
        browser = self.world.browser()
        page = browser.page("/login")
        names = {part.partition('"')[0] for part in page.split("/console/assets/")[1:]}
        self.assertEqual({name.partition("/")[2] for name in names}, {"console.css", "icon.svg"})
        for name in names:
            self.assertEqual(browser.get(f"/assets/{name}").status, 200, name)
        self.assertEqual(browser.get("/assets/x/passwords").status, 404)
        signed_in = self.world.signed_in().page("/deliveries")
        for text in ("style=", "onclick", "javascript:", "<style", "http://", "https://"):
            self.assertNotIn(text, page + signed_in)

    def test_changes_carry_the_token(self) -> None:
        """A form without the token of its session, or with another session's, is 403, and changes nothing."""
        event_id, browser, other = self.world.die(), self.world.signed_in(), self.world.signed_in()
        for token in ("", "wrong", "\u00e4", other.token()):
            answer = browser.post(f"/deliveries/{event_id}/replay", {"csrf": token})
            self.assertEqual(answer.status, 403, token)
        self.assertEqual(browser.post("/logout", {"csrf": ""}).status, 403)
        self.assertEqual(browser.act(f"/deliveries/{event_id}/replay").status, 303)

    def test_changes_come_from_here(self) -> None:
        """A form that a browser sends for a page of another site is 403, even with the token; so is a sign-in."""
        event_id, browser = self.world.die(), self.world.signed_in()
        token = browser.token()
        for headers in (
            {"Origin": "https://evil.test"},
            {"Origin": "null"},
            {"Origin": f"http://{HOST}.evil.test"},
            {"Origin": "http://[broken"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            for path, fields in ((f"/deliveries/{event_id}/replay", {"csrf": token}), ("/login", {"key": KEY})):
                self.assertEqual(browser.post(path, fields, **headers).status, 403, (path, headers))
        self.assertEqual(browser.post(f"/deliveries/{event_id}/replay", {"csrf": token}, Origin="").status, 403)

    def test_allowed_origins(self) -> None:
        """``allowed_origins`` is about senders of events: the console works whatever it names."""
        self.world.site.apply(OrchestratorSettings(allowed_origins=("https://app.test",)))
        self.assertEqual(self.world.browser().sign_in(KEY).status, 303)
        answer = self.world.browser().sign_in(KEY, Origin="https://app.test")
        self.assertEqual(answer.status, 403)

    def test_hosts(self) -> None:
        """Where the server listens on a loopback address, a name of another site that leads to it is refused."""
        self.world.site.listens_on("127.0.0.1")
        browser = self.world.browser()
        self.assertEqual(browser.get("/login").status, 403)
        self.assertEqual(browser.get("/login", Host="localhost:8080").status, 200)
        self.world.site.apply(OrchestratorSettings(admin_hosts=(HOST,)))
        self.assertEqual(browser.sign_in(KEY).status, 303)

    def test_own_listener(self) -> None:
        """Where operators have a listener of their own, the console is not on that of the triggers."""
        self.world.site.is_divided = True
        self.assertEqual(self.world.browser().get("/login").status, 404)

    def test_roles(self) -> None:
        """A key that may read sees every page; what it may not do is disabled, and refused."""
        ring, made = self.world.ring, make_key()
        ring.replace((NamedKey(name="ana", role=Role.READ, digest=digest_key(made), made_at=0.0, made_by="token"),))
        event_id, browser = self.world.die(), self.world.signed_in(made)
        page = browser.page(f"/deliveries/{event_id}")
        self.assertIn("key:ana", page)
        self.assertIn('disabled title="Your key has the role read; this needs operate."', page)
        self.assertEqual(browser.act(f"/deliveries/{event_id}/replay").status, 403)
        self.assertEqual(browser.act("/reloads/reload").status, 403)
        self.assertEqual(browser.act("/triggers/a/fire").status, 403)
        self.assertEqual(browser.act("/reloads/plan").status, 303)
        ring.replace(())
        self.assertEqual(browser.get("/deliveries").status, 303)

    def test_bodies(self) -> None:
        """A stranger may send no more than a key; another type of body is refused."""
        browser = self.world.browser()
        self.assertEqual(browser.sign_in("x" * 9000).status, 413)
        self.assertEqual(browser.sign_in(KEY, Content_Type="text/plain").status, 400)
        many = {f"f{number}": "x" for number in range(70)}
        self.assertEqual(self.world.signed_in().post("/logout", many).status, 400)

    def test_unknown(self) -> None:
        """A path without a page is 404, as a page for who has signed in; other methods are 405."""
        browser = self.world.signed_in()
        answer = browser.get("/nowhere/<script>")
        self.assertEqual((answer.status, answer.headers["content-type"]), (404, "text/html; charset=utf-8"))
        self.assertNotIn(b"<script>", answer.body.replace(b"<script src", b""))
        self.assertEqual(browser.request("DELETE", "/console/deliveries").headers["allow"], "GET, HEAD, OPTIONS")
        self.assertEqual(browser.get("").headers["location"], "/console/")

    def test_numbers(self) -> None:
        """What cannot be the number of a generation or a job is not found, however long it is."""
        browser = self.world.signed_in()
        for number in ("x", "1e3", "-1", "9" * 16, "9" * 5000, "%C2%B2"):
            self.assertEqual(browser.get(f"/reloads/{number}").status, 404, number)
            self.assertEqual(browser.act(f"/jobs/{number}/pause").status, 404, number)

    def test_long_queries(self) -> None:
        """A query of too many fields is refused, with a session and without, and nothing is logged as an error."""
        query = "&".join(f"f{number}=1" for number in range(65))
        self.assertEqual(self.world.browser().get(f"/login?{query}").status, 400)
        self.assertEqual(self.world.browser().get(f"/?{query}").status, 303)
        self.assertEqual(self.world.signed_in().get(f"/?{query}").status, 400)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_inside(self) -> None:
        """After signing in, no address leads out of the console."""
        for target in (
            *("https://evil.test/console/", "//evil.test/console/", "/console/\\evil", "/consolex", "javascript:x"),
            *("", "/admin", "/console/login", "/console/\r\nSet-Cookie: a=b", "/console/\u00e4", "http://["),
        ):
            self.assertEqual(inside(target), "/console/", target)
        for target in ("/console/", "/console/deliveries?state=dead&where=a%20b", "/console/deliveries/x"):
            self.assertEqual(inside(target), target)


class SwitchTests(SynchronousTestCase):
    def test_no_console(self) -> None:
        """``--no-console`` and its variable leave it out; by default it is there."""
        for given, environ, is_there in (
            ({}, {}, True),
            ({"no_console": True}, {}, False),
            ({}, {"HARN_ORCHESTRATOR_NO_CONSOLE": "true"}, False),
        ):
            options = ServeOptions.from_values({"config": "harn.toml", **given}, environ)
            self.assertEqual(console.install in list(features(options)), is_there, (given, environ))


class BoundTests(SynchronousTestCase):
    def test_sessions(self) -> None:
        """There are so many sessions at most, and the oldest ends; each keeps so many outcomes."""
        sessions = Sessions(Clock())
        ids = [sessions.open(b"%d" % (number % 40), Identity("key:1"))[0] for number in range(MOST + 1)]
        self.assertEqual(len(sessions), MOST)
        self.assertIsNone(sessions.find(ids[0]))
        session = sessions.find(ids[1])
        assert session is not None
        names = [session.keep(Outcome(text="done")) for _ in range(MOST_OUTCOMES + 1)]
        self.assertEqual([session.outcome(name) is None for name in names[:2]], [True, False])

    def test_sessions_of_one_key(self) -> None:
        """Whoever signs in again and again ends sessions of his own key, and no others'."""
        sessions = Sessions(Clock())
        other, _ = sessions.open(b"other", Identity("key:other"))
        ids = [sessions.open(b"k", Identity("key:k"))[0] for _ in range(MOST)]
        self.assertEqual(len(sessions), MOST_OF_KEY + 1)
        self.assertIsNotNone(sessions.find(other))
        self.assertEqual(
            [sessions.find(ids[at]) is None for at in (0, -MOST_OF_KEY - 1, -MOST_OF_KEY)], [True, True, False]
        )
        for number in range(MOST - 5):
            sessions.open(b"%d" % number, Identity("key:n"))
        self.assertEqual(len(sessions), MOST)
        self.assertIsNotNone(sessions.find(other))

    def test_attempts(self) -> None:
        """However many addresses fail, so many are remembered; old failures do not count."""
        clock = Clock()
        attempts = Attempts(clock)
        for _ in range(MOST_FAILURES):
            attempts.failed("a")
            clock.advance(5)
        self.assertEqual(attempts.wait("a"), 10)
        clock.advance(11)
        self.assertEqual(attempts.wait("a"), 0)
        for number in range(MOST_ADDRESSES):
            attempts.failed(str(number))
        attempts.failed("b")
        self.assertEqual((attempts.wait("0"), attempts.wait("b")), (0, 0))

    def test_cookies(self) -> None:
        """Two servers on one host do not end each other's sessions."""
        self.assertNotEqual(cookie_of("/var/lib/a"), cookie_of("/var/lib/b"))
