"""``send``: requests as senders make them, and the demo value that signs where a secret is not set."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials
from harn.cli.demo_secret import (
    DemoEnvironment,
    derive_demo_key,
    derive_public_keys,
    make_demo_secret,
    read_demo_secret,
)
from harn.cli.main import cli
from harn.connectors.catalog import Catalog
from harn.model.exchange import InboundRequest
from harn.testing.events import connector_of, event_of, normalized, plugin_of
from tests.cli.server import Seen, StubServer, tell_of

ACCEPTED = {"status": "accepted", "event_id": "trigger_evt_1", "trigger_id": "gh", "binding": "gh@v1"}
TRIGGER = """
[[triggers]]
id = "{id}"
kind = "webhook"
provider = "{provider}"
match = {{ events = {events} }}
handler = "handlers:on_event"
secrets = {{ signing_secret = "{provider}/key" }}
"""


class SendCase(SynchronousTestCase):
    """A manifest, and a stand-in for its server."""

    def setUp(self) -> None:
        self.state_dir = os.path.abspath(self.mktemp())
        self.manifest = os.path.abspath(self.mktemp())
        self.environ: dict[str, str | None] = {"HARN_SECRET_GITHUB_KEY": "s3cret"}
        self.write(TRIGGER.format(id="gh", provider="github", events="[]"))

    def write(self, text: str) -> None:
        """Write the manifest."""
        Path(self.manifest).write_text(text, "utf-8")

    def serve(self, *answers: tuple[int, Any]) -> StubServer:
        """Start a stand-in that the state directory names."""
        server = StubServer(*answers)
        self.addCleanup(server.close)
        self.addCleanup(tell_of(server.url, self.state_dir, manifest_path=self.manifest).release)
        return server

    def send(self, *arguments: str, typed: bytes | None = None) -> Result:
        """Run the command on the state directory."""
        words = ["send", "--state-dir", self.state_dir, *arguments]
        result = CliRunner().invoke(cli, words, prog_name="harn", env=self.environ, input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def assert_verified(self, seen: Seen, provider: str, secret: bytes = b"s3cret") -> None:
        """Check a request as the provider's connector does."""
        connector = connector_of(plugin_of(provider), secrets={"signing_secret": (secret,)})
        connector.prepare()
        connector.verify(self.request_of(seen), time.time())

    def request_of(self, seen: Seen) -> InboundRequest:
        """Return a request as connectors get it."""
        path, _, query = seen.target.partition("?")
        return InboundRequest(
            method="POST", path=path, query=query, headers=seen.headers, body=seen.body, received_at=time.time()
        )

    def kind_of(self, seen: Seen, provider: str = "github") -> str:
        """Return the kind of the event in a request."""
        request = self.request_of(seen)
        return event_of(provider, request, normalized(plugin_of(provider), request)).kind


class SendTests(SendCase):
    """Requests, and what is printed of their answers."""

    def test_agents(self) -> None:
        """A notification has an id and the agreed token, or an API key of this shell where nothing else is verified."""
        agent = TRIGGER.format(id="{id}", provider="a2a-push", events="[]").replace('"webhook"', '"a2a-push"')
        agent = agent.replace("signing_secret", "token")
        plain = agent.replace('secrets = { token = "a2a-push/key" }', "")
        self.write(agent.replace("{id}", "agent") + plain.replace("{id}", "plain"))
        self.environ |= {"HARN_SECRET_A2A_PUSH_KEY": "agreed", "HARN_ORCHESTRATOR_API_KEYS": "k1,k2"}
        server = self.serve((200, ACCEPTED), (200, ACCEPTED), (401, {"detail": "wrong key"}))
        self.assertEqual(self.send("agent", "--kind", "a2a.task.working").exit_code, 0)
        self.assertEqual(self.send("plain").exit_code, 0)
        refused = self.send("plain")
        self.assertIn("HARN_ORCHESTRATOR_API_KEYS of this shell must have a key of the server", refused.stderr)
        first, second, _ = server.seen
        self.assertEqual(first.headers["x-a2a-notification-token"], "agreed")
        self.assertEqual(first.json()["statusUpdate"]["status"]["state"], "TASK_STATE_WORKING")
        self.assertNotIn("authorization", first.headers)
        self.assertEqual(second.headers["authorization"], "Bearer k1")
        self.assertNotEqual(first.headers["x-a2a-delivery"], second.headers["x-a2a-delivery"])

    def test_own_credentials(self) -> None:
        """A trigger that verifies nothing else gets the demo value as a key, or a signature, each one another."""
        plain = TRIGGER.format(id="plain", provider="a2a-push", events="[]").replace('"webhook"', '"a2a-push"')
        self.write(plain.replace('secrets = { signing_secret = "a2a-push/key" }', ""))
        value = make_demo_secret(self.state_dir)
        server = self.serve((200, ACCEPTED), (401, {"detail": "wrong key"}), (200, ACCEPTED), (200, ACCEPTED))
        self.assertEqual(self.send("plain").exit_code, 0)
        self.assertEqual(server.seen[0].headers["authorization"], f"Bearer {derive_demo_key(value)}")
        demo = DemoEnvironment({"HARN_ORCHESTRATOR_API_KEYS": ""}, value)
        self.assertEqual(Credentials.from_environment(demo).keys, (derive_demo_key(value).encode(),))
        self.assertIn("signed with the demo value", self.send("plain").stderr)
        self.environ["HARN_ORCHESTRATOR_HMAC_SECRET"] = "h"
        self.assertEqual(self.send("plain", "--count", "2", "-d", "{}").exit_code, 0)
        signed = {seen.headers["authorization"] for seen in server.seen[2:]}
        self.assertEqual((len(signed), all(each.startswith("HMAC-SHA256 ") for each in signed)), (2, True))
        authenticator = Authenticator(Credentials(hmac_secret=b"h"))
        for seen in server.seen[2:]:
            authenticator.authenticate("POST", seen.target, seen.headers, seen.body, time.time())

    def test_signed(self) -> None:
        """A request goes to the trigger's path, verified with its secret; status and answer are printed."""
        server = self.serve((200, ACCEPTED))
        result = self.send("gh")
        self.assertEqual((result.exit_code, result.stdout), (0, f"200 {json.dumps(ACCEPTED)}\n"), result.output)
        (seen,) = server.seen
        self.assertEqual((seen.method, seen.target), ("POST", "/triggers/gh"))
        self.assert_verified(seen, "github")
        self.assertEqual(self.kind_of(seen), "issues.opened")

    def test_kind(self) -> None:
        """The kind is the one that was asked for; else one that the trigger takes."""
        server = self.serve(*[(200, ACCEPTED)] * 3)
        self.send("gh", "--kind", "push")
        self.write(TRIGGER.format(id="gh", provider="github", events='["pull_request.*"]'))
        self.send("gh")
        self.write(TRIGGER.format(id="gh", provider="github", events='["star.created"]'))
        self.send("gh")
        kinds = [self.kind_of(seen) for seen in server.seen]
        self.assertEqual(kinds, ["push", "pull_request.opened", "star.created"])

    def test_data_and_headers(self) -> None:
        """A body is sent byte for byte, signed; headers come beside those of the sender, and win."""
        file = self.mktemp()
        Path(file).write_bytes(b'{ "action": "closed" }')
        server = self.serve(*[(200, ACCEPTED)] * 3, (401, {"detail": "wrong"}))
        self.send("gh", "-d", f"@{file}", "-H", "X-Further: 1", "-H", "x-github-delivery: d-1")
        self.send("gh", "-d", "-", typed=b"[]")
        self.send("gh", "-d", "text")
        self.assertEqual([seen.body for seen in server.seen], [b'{ "action": "closed" }', b"[]", b"text"])
        self.assertEqual(server.seen[0].headers["x-further"], "1")
        self.assertEqual(server.seen[0].headers["x-github-delivery"], "d-1")
        refused = self.send("gh", "-H", "X-Hub-Signature-256: sha256=00", "--sender", "gitea")
        self.assertEqual(server.seen.pop().headers["x-hub-signature-256"], "sha256=00")
        self.assertIn("takes requests of github: leave out --sender", refused.stderr)
        for seen in server.seen:
            self.assert_verified(seen, "github")

    def test_count(self) -> None:
        """Each of several requests has an identity of its own; with --json the answers are a list."""
        server = self.serve(*[(200, ACCEPTED)] * 3)
        result = self.send("gh", "--count", "3", "--json")
        self.assertEqual(json.loads(result.stdout), [{"status": 200, "answer": ACCEPTED}] * 3)
        self.assertEqual(len({seen.headers["x-github-delivery"] for seen in server.seen}), 3)

    def test_every_sender(self) -> None:
        """Each provider whose secret signs is sent as its sender does, and accepted by its own connector."""
        checked = 0
        self.environ["HARN_SECRET_WEBHOOK_KEY"] = self.environ["HARN_SECRET_STANDARD_KEY"] = "whsec_" + "YWJj" * 8
        for provider, plugin in Catalog.discover().plugins.items():
            if tuple(plugin.required_secrets) != ("signing_secret",) or provider in ("discord", "sendgrid", "hmac"):
                continue
            name = f"HARN_SECRET_{provider.upper()}_KEY"
            self.environ.setdefault(name, "s3cret")
            self.write(TRIGGER.format(id="t", provider=provider, events="[]"))
            self.state_dir = os.path.abspath(self.mktemp())
            server = self.serve((200, ACCEPTED))
            result = self.send("t")
            self.assertEqual(result.exit_code, 0, (provider, result.output))
            self.assert_verified(server.seen[0], provider, str(self.environ[name]).encode())
            checked += 1
        self.assertGreaterEqual(checked, 8)

    def test_refused(self) -> None:
        """An answer that is not a success is printed, and said as an error with what to do: exit 1."""
        self.serve((401, {"detail": "the signature is wrong"}), (404, {"detail": "no such path"}), (503, b"busy"))
        for said in ("the secret of this shell must be the server's", "has the server adopted the trigger?", "busy"):
            result = self.send("gh")
            self.assertEqual(result.exit_code, 1)
            self.assertIn("error: the server answered ", result.stderr)
            self.assertIn(said, result.stderr)

    def test_wrong(self) -> None:
        """What keeps it from sending is named, with what to write; nothing is sent."""
        server = self.serve()
        for arguments, said in (
            (("g",), "there is no trigger 'g'; did you mean 'gh'?"),
            (("gh", "-d", "@nowhere"), "nowhere cannot be read"),
            (("gh", "--sender", "githb"), "did you mean"),
            (("gh", "--sender", "cron"), "--sender: cron sends no requests"),
        ):
            result = self.send(*arguments)
            self.assertEqual((result.exit_code, result.stdout), (1, ""), arguments)
            self.assertIn(said, result.stderr)
        result = self.send("gh", "-H", "novalue")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--header must be NAME:VALUE", result.stderr)
        self.assertIn("characters of Latin-1 only", self.send("gh", "-H", "X-Name: \u65e5").stderr)
        self.environ["HARN_SECRET_STANDARD_KEY"] = "not base64!"
        self.write(TRIGGER.format(id="payments", provider="standard", events="[]"))
        self.assertIn("trigger payments: the value of the secret signing_secret cannot", self.send("payments").stderr)
        self.write("nonsense [")
        self.assertIn("is not TOML", self.send("gh").stderr)
        self.assertEqual(server.seen, [])

    def test_no_server(self) -> None:
        """Without a server the command says how to start one; a URL at which none listens is named."""
        self.assertIn("no server runs on", self.send("gh").stderr)
        result = self.send("gh", "--config", self.manifest, "--url", "http://127.0.0.1:9")
        self.assertIn("no server answers at http://127.0.0.1:9", result.stderr)
        missing = self.send("gh", "--config", self.manifest, "--url", "https://127.0.0.1:9", "--cacert", "nowhere.pem")
        self.assertIn("--cacert nowhere.pem cannot be used", missing.stderr)
        self.assertEqual(self.send("gh", "--url", "nowhere").exit_code, 2)


class DemoTests(SendCase):
    """Secrets that are not set."""

    def test_signs_with_the_demo_value(self) -> None:
        """A secret that is not set has the value of the state directory, if there is one; else it is missing."""
        self.environ = {"HARN_SECRET_GITHUB_KEY": None}
        server = self.serve((200, ACCEPTED), (401, {"detail": "wrong"}))
        self.assertIn("secret github/key is not set", self.send("gh").stderr)
        value = make_demo_secret(self.state_dir)
        self.send("gh")
        self.assert_verified(server.seen[0], "github", value.encode())
        self.assertIn("signed with the demo value", self.send("gh").stderr)

    def test_private_keys(self) -> None:
        """A sender that signs with a private key has a pair of the demo value; the secret is its public key."""
        value = make_demo_secret(self.state_dir)
        environ = DemoEnvironment({}, value, derive_public_keys(Catalog.discover().plugins, value))
        server = self.serve((200, ACCEPTED), (200, ACCEPTED))
        for number, provider in enumerate(("discord", "sendgrid")):
            self.write(TRIGGER.format(id="t", provider=provider, events="[]"))
            result = self.send("t")
            self.assertEqual(result.exit_code, 0, (provider, result.output))
            self.assert_verified(server.seen[number], provider, environ[f"HARN_SECRET_{provider.upper()}_KEY"].encode())

    def test_file(self) -> None:
        """The value is made once, and its owner alone may read it."""
        value = make_demo_secret(self.state_dir)
        self.assertEqual((make_demo_secret(self.state_dir), read_demo_secret(self.state_dir)), (value, value))
        path = os.path.join(self.state_dir, "dev-secret")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.state_dir).st_mode), 0o700)
        self.assertIsNone(read_demo_secret(self.mktemp()))

    def test_environment(self) -> None:
        """Only secrets without a value, and without a file, are filled in; those are recorded."""
        environ = DemoEnvironment({"HARN_SECRET_A_B": "own", "HARN_SECRET_C_D_FILE": "/f", "HOME": "/h"}, "demo")
        self.assertEqual((environ["HARN_SECRET_A_B"], environ.get("HARN_SECRET_X_Y")), ("own", "demo"))
        for name in ("API_KEYS", "API_KEYS_FILE", "HMAC_SECRET", "HMAC_SECRET_FILE"):
            own = {f"HARN_ORCHESTRATOR_{name}": "own"}
            self.assertNotEqual(DemoEnvironment(own, "demo").get("HARN_ORCHESTRATOR_API_KEYS"), "demo", name)
        others = ("HARN_SECRET_C_D", "HARN_SECRET_X_Y_FILE", "HARN_SECRET_PROVIDERS", "HARN_SECRET_NAMESPACE", "PATH")
        for name in others:
            self.assertIsNone(environ.get(name), name)
        self.assertEqual(environ.filled, {"HARN_SECRET_X_Y"})
        self.assertEqual(sorted(environ), ["HARN_SECRET_A_B", "HARN_SECRET_C_D_FILE", "HOME"])
