"""The Kubernetes example, in a directory that is laid out and swapped as a kubelet does it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from twisted.trial.unittest import SkipTest

from harn.testing.manifests import trigger_text
from harn.testing.server import Completed, ServerProcess, wait_until
from tests.integration.case import ServerCase

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes"
ENTRY = re.compile(r"^  (?P<name>[\w.-]+): \|\n(?P<text>(?:    .*\n|\n)+)", re.MULTILINE)
SECRET = b"hook-secret"


class KubernetesTests(ServerCase):
    """A server on a mounted ConfigMap and a mounted Secret."""

    def setUp(self) -> None:
        """Mount both."""
        if not EXAMPLE.is_dir():
            raise SkipTest("the examples are not here")
        super().setUp()
        self.swaps = 0
        self.files = self.directory / "manifest"
        shutil.copytree(EXAMPLE / "manifest", self.files, ignore=shutil.ignore_patterns("__pycache__"))
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})
        self.mount("secrets", {"api-keys": b"the-key", "github-webhook-secret": SECRET})
        for name, value in {
            "HARN_ORCHESTRATOR_API_KEYS_FILE": f"{self.directory}/secrets/api-keys",
            "HARN_SECRET_GITHUB_WEBHOOK_SECRET_FILE": f"{self.directory}/secrets/github-webhook-secret",
            "HARN_ORCHESTRATOR_STATE_DIR": "state",
            "HARN_API_KEY": "the-key",
        }.items():
            self.environ[name] = value
        del self.environ["HARN_ORCHESTRATOR_API_KEYS"], self.environ["HARN_SECRET_GITHUB_WEBHOOK_SECRET"]

    def mount(self, name: str, files: dict[str, bytes]) -> None:
        """Write a volume, or swap what is in it: a directory of its own, and links that lead through ``..data``."""
        self.swaps += 1
        root = self.directory / name
        content = root / f"..2026_01_01.{self.swaps}"
        content.mkdir(parents=True)
        for each, data in files.items():
            (content / each).write_bytes(data)
        old = (root / "..data").resolve() if (root / "..data").exists() else None
        (root / "..data_tmp").symlink_to(content.name)
        (root / "..data_tmp").replace(root / "..data")
        for each in files:
            if not (root / each).is_symlink():
                (root / each).symlink_to(f"..data/{each}")
        if old is not None:
            shutil.rmtree(old)

    def update(self, name: str, old: str, new: str) -> None:
        """Edit one of the files, and apply them all."""
        path = self.files / name
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})

    def serve_example(self) -> ServerProcess:
        """Serve as the Deployment does."""
        return self.serve("--watch", "--last-good", "--shutdown-timeout", "30", config="mounted/harn.toml")

    def waiting(self, server: ServerProcess, seconds: float = 30.0) -> Popen[str]:
        """Begin to wait, as a pipeline does."""
        command = [sys.executable, str(EXAMPLE / "wait.py"), server.url, str(self.files), str(seconds)]
        started = Popen(command, env=self.environ, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, text=True)
        self.addCleanup(started.kill)
        return started

    def ended_waiting(self, waiting: Popen[str]) -> Completed:
        """Return how the wait ended."""
        out, err = waiting.communicate(timeout=180)
        return Completed(waiting.returncode, out, err)

    def test_configmap(self) -> None:
        """The ConfigMap holds just the files in ``manifest``, and these pass ``harn orchestrator check``."""
        text = (EXAMPLE / "configmap.yaml").read_text()
        held = {
            found["name"]: re.sub(r"^    ", "", found["text"], flags=re.MULTILINE) for found in ENTRY.finditer(text)
        }
        self.assertEqual(held, {each.name: each.read_text() for each in self.files.iterdir()})
        done = self.harn("orchestrator", "check", "--config", "mounted/harn.toml")
        self.assertEqual(done.status, 0, done)

    def test_variables(self) -> None:
        """Each file that a variable of the Deployment names is a key of the Secret, below where that is mounted."""
        deployment = (EXAMPLE / "deployment.yaml").read_text()
        keys = re.findall(r"^  ([a-z-]+): change-me", (EXAMPLE / "secret.yaml").read_text(), re.MULTILINE)
        named = re.findall(r"_FILE\n +value: (.*)\n", deployment)
        self.assertIn("mountPath: /etc/harn/secrets\n", deployment)
        self.assertEqual(sorted(named), [f"/etc/harn/secrets/{key}" for key in sorted(keys)])

    def test_update(self) -> None:
        """An update is one reload, a pipeline can detect that it serves, and no further call is needed."""
        server = self.serve_example()
        done = self.ended_waiting(self.waiting(server))
        self.assertEqual((done.status, done.stdout), (0, f"generation 1 serves {self.files}\n"))
        self.update("handlers.py", "issue['title']!r", "issue['title'].upper()")
        done = self.ended_waiting(self.waiting(server))
        self.assertEqual((done.status, done.stdout), (0, f"generation 2 serves {self.files}\n"), done)
        self.assertEqual(server.request("GET", "/readyz?generation=2").status, 200)
        self.assert_problem(server.request("GET", "/readyz?generation=3"), 503)
        body = b'{"action": "opened", "issue": {"number": 7, "title": "it works"}}'
        self.assert_accepted(server.deliver("/hooks/github", body, delivery="d1", secret=SECRET), "github-issues")
        server.wait_for_line("#7 IT WORKS")
        self.mount("secrets", {"api-keys": b"the-key", "github-webhook-secret": b"another"})
        self.wait_generation(server, 3)
        self.assert_problem(server.deliver("/hooks/github", body, delivery="d2", secret=SECRET), 401)

    def test_refused(self) -> None:
        """An update that is refused ends the pipeline with the reason; both probes stay; a pod that starts serves."""
        server = self.serve_example()
        waiting = self.waiting(server)
        server.wait_for_line("listener ready")
        self.assertEqual(self.ended_waiting(waiting).status, 0)
        (self.files / "handlers.py").write_text("def on_issue(:\n")
        asked = self.asked(server)
        waiting = self.waiting(server)
        wait_until(lambda: self.asked(server) > asked, "the pipeline's first question")
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})
        done = self.ended_waiting(waiting)
        self.assertEqual(done.status, 1)
        self.assertIn("SyntaxError", done.stderr)
        self.assertEqual([server.request("GET", path).status for path in ("/healthz", "/readyz")], [200, 200])
        self.assertEqual(server.terminate(), 0, server.stderr)
        server = self.serve_example()
        body = b'{"action": "opened", "issue": {"number": 8, "title": "still"}}'
        self.assert_accepted(server.deliver("/hooks/github", body, delivery="d1", secret=SECRET), "github-issues")
        server.wait_for_line("#8 'still'")

    def refuse(self, server: ServerProcess) -> None:
        """Apply files that are refused, and wait until they are."""
        self.update("handlers.py", "def on_issue(", "def on_issue((")
        wait_until(lambda: self.told(server)["last_failed"], "the refusal")

    def told(self, server: ServerProcess) -> dict[str, Any]:
        """Return the server's description of its live generation."""
        answer = server.request("GET", "/admin/generation", headers={"X-API-Key": "the-key"})
        document: dict[str, Any] = answer.json()
        return document

    def test_refused_before(self) -> None:
        """An update that was refused before the pipeline asked ends it at once, with the reason."""
        server = self.serve_example()
        self.refuse(server)
        done = self.ended_waiting(self.waiting(server))
        self.assertEqual(done.status, 1)
        self.assertIn("generation 1 still serves other files: ", done.stderr)
        self.assertIn("SyntaxError", done.stderr)
        self.assertNotIn("(after", done.stderr)

    def test_an_earlier_one_was_refused(self) -> None:
        """What is refused of earlier files, also of the same names, says nothing of those that are waited for."""
        server = self.serve_example()
        good = (self.files / "handlers.py").read_text()
        self.refuse(server)
        (self.files / "handlers.py").write_text(good + "# mended\n")
        asked = self.asked(server)
        waiting = self.waiting(server)
        wait_until(lambda: self.asked(server) > asked + 1, "the pipeline's second question")
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})
        done = self.ended_waiting(waiting)
        self.assertEqual((done.status, done.stdout), (0, f"generation 2 serves {self.files}\n"), done)

    def test_held_before(self) -> None:
        """An update that is held, since most triggers would go, ends the pipeline at once, with the reason."""
        path = self.files / "harn.toml"
        text = path.read_text()
        more = [trigger_text(f"more-{index}", handler="handlers:on_issue") for index in range(2)]
        path.write_text("\n".join((text, *more)))
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})
        server = self.serve_example()
        path.write_text(text)
        self.mount("mounted", {each.name: each.read_bytes() for each in self.files.iterdir()})
        wait_until(lambda: self.told(server)["waiting"], "the reload to be held")
        done = self.ended_waiting(self.waiting(server))
        self.assertEqual(done.status, 1)
        self.assertIn("it would remove 2 of 3 triggers", done.stderr)
        self.assertNotIn("(after", done.stderr)

    def asked(self, server: ServerProcess) -> float:
        """Count the requests to the admin API that were answered."""
        metrics = server.request("GET", "/metrics").body.decode()
        return sum(float(each) for each in re.findall(r'_requests_total\{[^}]*"/admin[^}]*\} (\S+)', metrics))

    def test_never(self) -> None:
        """Files that are never applied are not waited for without end."""
        server = self.serve_example()
        (self.files / "harn.toml").write_text("# never applied\n")
        done = self.ended_waiting(self.waiting(server, 1.0))
        self.assertEqual(done.status, 1)
        self.assertIn("still serves other files: nothing was refused (after 1 s)", done.stderr)
        self.environ["HARN_API_KEY"] = "wrong"
        done = self.ended_waiting(self.waiting(server, 1.0))
        self.assertIn("the server does not answer: HTTP Error 401", done.stderr)

    def test_commands_in_the_pod(self) -> None:
        """With the Deployment's environment alone the commands find the server, and its key."""
        self.serve_example()
        done = self.harn("orchestrator", "reload", "--json")
        self.assertEqual(done.status, 0, done)
        self.assertIn('"generation":1', done.stdout.replace(" ", ""))
