"""``[[triggers.alerts]]``, ``[[orchestrator.alerts]]`` and ``[orchestrator.smtp]``: their values and every mistake."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest.alerts import AlertSpec, fault_of_mailbox, fault_of_url
from harn.manifest.changes import changed_fields, field_differences, format_field, setting_differences
from harn.manifest.model import TriggerSpec, alert_secrets
from harn.testing.manifests import trigger_text
from tests.manifest.rules import UNHURRIED, complaints, load

SLACK = '[[triggers.alerts]]\non = "dead_letter"\nto = "slack"\nurl_secret = "alerts/slack"\n'
SMTP = '[orchestrator.smtp]\nhost = "mail.test"\nfrom = "harn@shop.test"\n'


def spec_of(text: str, head: str = "") -> TriggerSpec:
    """Return the spec of a trigger with these further lines."""
    return load(head + trigger_text("gh", extra=text)).manifest.triggers["gh"]


class AlertTests(SynchronousTestCase):
    """Tables of alerts."""

    def check(self, extra: str, *expected: str, head: str = "") -> None:
        """Assert that a trigger with these further lines has exactly these problems."""
        found = complaints(head + trigger_text("gh", extra=extra))
        self.assertEqual([problem.partition(": ")[2] for problem in found], list(expected))

    def check_alert(self, table: str, *expected: str) -> None:
        """Assert that an inline table has exactly these problems as the alert of a trigger."""
        self.check(f"alerts = [{{ {table} }}]", *(f"triggers[0] (gh): alerts[0].{each}" for each in expected))

    def test_values(self) -> None:
        """Every key arrives, durations in seconds; what is not given has its default."""
        spec = spec_of(
            SLACK
            + '[[triggers.alerts]]\non = "circuit_open"\nto = "webhook"\naddress = "http://127.0.0.1:9/x"\n'
            + 'signing_secret = "alerts/key"\nthreshold = 5\nwithin = "1m"\nevery = "2h"\n'
        )
        self.assertEqual(
            spec.alerts,
            (
                AlertSpec(on="dead_letter", to="slack", url_secret="alerts/slack"),
                AlertSpec(
                    on="circuit_open",
                    to="webhook",
                    address="http://127.0.0.1:9/x",
                    signing_secret="alerts/key",
                    threshold=5,
                    within=60.0,
                    every=7200.0,
                ),
            ),
        )
        self.assertEqual((spec.alerts[0].threshold, spec.alerts[0].within, spec.alerts[0].every), (1, 600.0, 3600.0))

    def test_of_all_triggers(self) -> None:
        """``[[orchestrator.alerts]]`` takes the same keys; hyphens are another spelling."""
        head = SMTP + '[[orchestrator.alerts]]\non = "silent"\nto = "email"\naddress = "ops@shop.test"\nwithin = "1d"\n'
        head += '[[orchestrator.alerts]]\non = "late"\nto = "slack"\nurl-secret = "alerts/slack"\n'
        settings = load(head + trigger_text("gh")).manifest.orchestrator
        self.assertEqual([alert.target for alert in settings.alerts], ["ops@shop.test", "alerts/slack"])
        self.assertEqual(
            (settings.smtp.host, settings.smtp.sender, settings.smtp.port_number), ("mail.test", "harn@shop.test", 587)
        )

    def test_unknown(self) -> None:
        """Unknown keys and words are refused where they stand, with the nearest one that there is."""
        self.check_alert(
            'on = "dead_leter", to = "slack", url_secret = "a/b"',
            'on: "dead_leter" is not known; did you mean "dead_letter"? known: "dead_letter", '
            '"circuit_open", "reload_failed", "silent", "late"',
        )
        self.check_alert(
            'on = "late", to = "slack", url_secret = "a/b", evry = "1h"', 'evry: unknown key; did you mean "every"?'
        )
        self.check(
            "alerts = 5",
            "triggers[0] (gh): alerts: must be an array of tables, got an integer; write [[triggers.alerts]]",
        )
        self.check("alerts = [5]", "triggers[0] (gh): alerts[0]: must be a table, got an integer")

    def test_missing(self) -> None:
        """What an alert needs is named, with an example."""
        self.check_alert(
            "", 'on: is missing; write for example on = "dead_letter"', 'to: is missing; write for example to = "slack"'
        )
        self.check_alert(
            'on = "late", to = "slack"',
            'url_secret: is missing: to = "slack" needs it; name the secret that holds the URL: '
            'url_secret = "alerts/slack"',
        )
        self.check_alert(
            'on = "late", to = "webhook"',
            'url_secret: is missing: to = "webhook" needs it; name the secret that holds the URL: '
            'url_secret = "alerts/webhook"',
        )
        self.check(
            'alerts = [{ on = "late", to = "email" }]',
            'triggers[0] (gh): alerts[0].address: is missing: to = "email" needs it; write for '
            'example address = "ops@example.com"',
            head=SMTP,
        )

    def test_what_goes_together(self) -> None:
        """A key that would not count is refused, and never passed over."""
        slack = 'to = "slack", url_secret = "a/b"'
        self.check_alert(
            f'on = "silent", {slack}, threshold = 2',
            'threshold: does not count with on = "silent"; remove it; `within` is its limit',
        )
        self.check_alert(
            f'on = "late", {slack}, signing_secret = "a/b"',
            'signing_secret: does not count with to = "slack"; remove it',
        )
        self.check_alert(
            f'on = "late", {slack}, address = "https://x.test"',
            'address: does not count with to = "slack"; the URL is a secret: write url_secret = ...',
        )
        self.check_alert(
            'on = "late", to = "webhook", url_secret = "a/b", address = "https://x.test"',
            "address: does not go with url_secret; keep one of the two",
        )

    def test_limits(self) -> None:
        """Thresholds and times have limits."""
        slack = 'on = "dead_letter", to = "slack", url_secret = "a/b"'
        self.check_alert(f"{slack}, threshold = 0", "threshold: must be from 1 to 1000, got 0")
        self.check_alert(f'{slack}, within = "10ms"', 'within: must be at least 1s, got "10ms"; write for example "1s"')
        self.check_alert(
            f"{slack}, every = 60", 'every: must be a string with a unit, got an integer; write it as "60s"'
        )

    def test_no_message_shows_what_may_be_a_secret(self) -> None:
        """Where a URL stands instead of a reference, the problem does not repeat it."""
        self.check_alert(
            'on = "late", to = "slack", url_secret = "https://hooks.test/T0/B0/xyz"',
            "url_secret: must be a secret reference; write namespace/name, for example github/token",
        )
        self.check_alert(
            'on = "late", to = "webhook", address = "hooks.test/xyz"',
            "address: must begin with https:// or http://; put a URL with anything secret in it into "
            "a secret, and name url_secret",
        )

    def test_mail(self) -> None:
        """An alert to email needs a mail server, and an address."""
        mail = 'alerts = [{ on = "late", to = "email", address = "ops@shop.test" }]'
        needs = 'needs a mail server; add [orchestrator.smtp] with host = "..." and from = "..."'
        self.check(mail, f"triggers[0] (gh): alerts[0].to: {needs}")
        head = '[[orchestrator.alerts]]\non = "late"\nto = "email"\naddress = "ops@shop.test"\n'
        self.check("", f"orchestrator.alerts[0].to: {needs}", head=head)
        self.check(mail, head=SMTP)
        self.check(
            mail.replace("ops@", "ops "),
            'triggers[0] (gh): alerts[0].address: must be one mail address, got "ops shop.test"; '
            'write for example "ops@example.com"',
            head=SMTP,
        )

    def test_smtp(self) -> None:
        """Keys of the mail server that do not go together are refused."""
        self.check(
            "", "orchestrator.smtp.host: is missing; write host = ...", head='[orchestrator.smtp]\nfrom = "a@b.test"\n'
        )
        self.check(
            "", "orchestrator.smtp.from: is missing; write from = ...", head='[orchestrator.smtp]\nhost = "b.test"\n'
        )
        self.check(
            "",
            "orchestrator.smtp.username: counts only with password_secret; set that, or remove username",
            head=SMTP + 'username = "u"\n',
        )
        self.check(
            "",
            "orchestrator.smtp.password_secret: would be sent without encryption; set tls to "
            '"starttls" or "tls", or log in without one',
            head=SMTP + 'username = "u"\npassword_secret = "mail/password"\ntls = "none"\n',
        )

    def test_lines(self) -> None:
        """A problem names the line of its key."""
        found = complaints(trigger_text("gh", extra=SLACK + SLACK + "threshold = 0\n"))
        self.assertEqual([problem.split(": ")[0] for problem in found], ["harn.toml:16"])


class ChangeTests(SynchronousTestCase):
    """An edit of a trigger's alerts is an edit of the trigger."""

    def test_fingerprint(self) -> None:
        """Alerts belong to the definition; a trigger without any keeps the fingerprint that it always had."""
        plain, one = spec_of(""), spec_of(SLACK)
        self.assertNotEqual(plain.fingerprint(), one.fingerprint())
        self.assertEqual(spec_of("alerts = []").fingerprint(), plain.fingerprint())
        self.assertEqual(plain.fingerprint(), "sha256:e7bc357f3ca053551b5c016f0f4700f66120757ac6e3742dc259e1b5a5fc4d49")

    def test_what_changed(self) -> None:
        """The key is named, and both sides are shown as the manifest writes them."""
        one, two = spec_of(SLACK), spec_of(SLACK + 'every = "90m"\n')
        self.assertEqual(changed_fields(one, two), ("alerts",))
        ((key, _, after),) = field_differences(one, two)
        written = {"on": "dead_letter", "to": "slack", "url_secret": "alerts/slack", "threshold": 1}
        self.assertEqual(format_field(key, after), [{**written, "within": "10m", "every": "90m"}])

    def test_settings(self) -> None:
        """A change of the mail server is named by the keys of the manifest."""
        one, two = (load(SMTP.replace("harn@", who) + trigger_text("a")).manifest.orchestrator for who in ("a@", "b@"))
        self.assertEqual(list(setting_differences(one, two)), [("smtp.from", "a@shop.test", "b@shop.test")])

    def test_secrets(self) -> None:
        """Every secret that sending needs is listed with its place."""
        head = SMTP + 'username = "u"\npassword_secret = "mail/password"\n'
        head += '[[orchestrator.alerts]]\non = "late"\nto = "slack"\nurl_secret = "alerts/slack"\n'
        manifest = load(head + trigger_text("gh", extra=SLACK)).manifest
        found = [(each.reference, each.site.trigger_id, each.site.key) for each in alert_secrets(manifest)]
        self.assertEqual(
            found,
            [
                ("alerts/slack", None, "alerts[0].url_secret"),
                ("alerts/slack", "gh", "alerts[0].url_secret"),
                ("mail/password", None, "smtp.password_secret"),
            ],
        )


class FaultTests(SynchronousTestCase):
    """What a URL and a mail address may be."""

    def test_urls(self) -> None:
        """A receiver's URL has a scheme of HTTP and a host, and no credentials in front of it."""
        for good in ("https://hooks.slack.com/services/T0/B0/x", "http://127.0.0.1:8000/", "http://[::1]:1/a?b=c"):
            self.assertIsNone(fault_of_url(good), good)
        for bad in (
            "",
            "hooks.test",
            "ftp://a.test",
            "https://",
            "http://a.test:0/",
            "http://u:p@a.test/",
            "http://a b",
        ):
            self.assertIsNotNone(fault_of_url(bad), bad)

    @UNHURRIED
    @given(st.text())
    def test_no_fault_repeats_the_text(self, text: str) -> None:
        """Whatever a secret holds, what is wrong with it does not show it."""
        fault = fault_of_url(text)
        if fault is not None and len(text) > 12:
            self.assertNotIn(text, fault)

    def test_mailboxes(self) -> None:
        """One address, and nothing that could end a line of the protocol."""
        self.assertIsNone(fault_of_mailbox("first.last+tag@mail.example.com"))
        for bad in ("a", "a@", "@b", "a@b, c@d", "a@b\r\nRCPT TO:<x@y>", "<a@b>", "a b@c", "é@b.test"):
            self.assertIsNotNone(fault_of_mailbox(bad), bad)
