"""The container's files: what they copy is there, they agree with each other and the page, and none runs as root."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from harn.options import OPTIONS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "container.md"
SHUTDOWN = 30
"""Seconds of --shutdown-timeout; see `test_stop`."""


@frozen
class Instruction:
    """One instruction of a Containerfile, its lines joined."""

    name: str
    rest: str


def instructions(text: str) -> Iterator[list[Instruction]]:
    """Yield the instructions of each stage."""
    stage: list[Instruction] = []
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM" and stage:
            yield stage
            stage = []
        stage.append(Instruction(name, " ".join(rest.split())))
    yield stage


def seconds(text: str) -> int:
    """Return a duration of Compose in seconds."""
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, text
    return int(found[1])


class Ready(BaseHTTPRequestHandler):
    """Answers ``GET /readyz`` with the status of its server."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class ContainerTests(SynchronousTestCase):
    """``Containerfile``, ``compose.yaml`` and ``.dockerignore``."""

    def setUp(self) -> None:
        if not (ROOT / "Containerfile").exists():
            raise SkipTest("these tests run apart from the source")
        self.stages = list(instructions((ROOT / "Containerfile").read_text("utf-8")))
        self.last = self.stages[-1]
        self.compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
        self.service = self.compose["services"]["harn"]
        self.page = PAGE.read_text("utf-8")

    def of(self, name: str) -> str:
        """Return the arguments of the one instruction of a name in the last stage."""
        [found] = [each.rest for each in self.last if each.name == name]
        return found

    def environment(self) -> dict[str, str]:
        """Return the image's variables."""
        return dict(re.findall(r"(\w+)=(\S+)", self.of("ENV")))

    def test_sources(self) -> None:
        """What is copied into the image is there and sent to the engine, and so is all that the package is built of."""
        ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        self.assertIn("*", ignored)
        sent = {line[1:] for line in ignored if line.startswith("!")}
        copied = set()
        for each in (each for stage in self.stages for each in stage if each.name == "COPY"):
            if not each.rest.startswith("--from="):
                copied.update(each.rest.split()[:-1])
        self.assertEqual(copied, sent)
        self.assertEqual([name for name in copied if not (ROOT / name).exists()], [])
        ci = (ROOT / ".ci" / "run").read_text("utf-8")
        built = re.search(r'^cp -R (.*) "\$work/source"$', ci, re.MULTILINE)
        assert built is not None
        self.assertEqual(copied, set(built[1].split()))

    def test_python(self) -> None:
        """Every stage has a Python that the package supports, and the same one."""
        used = {each.rest.split()[0] for stage in self.stages for each in stage if each.name == "FROM"}
        [image] = used
        self.assertRegex(image, r"^python:3\.\d+-slim$")
        supported = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text("utf-8"))
        self.assertIn(image.removeprefix("python:").removesuffix("-slim"), supported)

    def test_user(self) -> None:
        """The server is not root, by number, and is the user of the Kubernetes example; Compose takes no right back."""
        self.assertEqual(self.of("USER"), "1000:1000")
        deployment = (ROOT / "examples" / "kubernetes" / "deployment.yaml").read_text("utf-8")
        self.assertIn("runAsUser: 1000\n", deployment)
        self.assertLess(
            [each.name for each in self.last].index("USER"), [each.name for each in self.last].index("ENTRYPOINT")
        )
        self.assertEqual((self.service["read_only"], self.service["cap_drop"]), (True, ["ALL"]))
        self.assertNotIn("user", self.service)
        self.assertNotIn("privileged", self.service)

    def test_port(self) -> None:
        """Image, Compose and page have one port, and Compose shows it to this machine alone."""
        _, _, port = self.environment()["HARN_ORCHESTRATOR_LISTEN"].partition(":")
        self.assertEqual(self.of("EXPOSE"), port)
        self.assertEqual(self.service["ports"], [f"127.0.0.1:{port}:{port}"])
        self.assertIn(f"-p 127.0.0.1:{port}:{port}", self.page)
        self.assertIn(f"**Port {port}**", self.page)

    def test_volumes(self) -> None:
        """The state directory is a named volume; the manifest's is mounted where the server starts, read only."""
        state = self.environment()["HARN_ORCHESTRATOR_STATE_DIR"]
        self.assertEqual(self.of("VOLUME"), state)
        manifest, kept = self.service["volumes"]
        self.assertEqual(kept, f"state:{state}")
        self.assertIn("state", self.compose["volumes"])
        folder, _, mode = manifest.partition("}:")[2].partition(":")
        self.assertEqual((folder, mode), (self.of("WORKDIR"), "ro"))
        default = re.match(r"\$\{HARN_MANIFEST_DIR:-(.*?)\}", manifest)
        assert default is not None
        self.assertTrue((ROOT / default[1] / "harn.toml").is_file())
        for path in (state, folder):
            self.assertIn(f"**`{path}`**", self.page)
            self.assertRegex(self.page, rf"-v \S+:{path}\b")

    def test_variables(self) -> None:
        """Each variable is an option of `serve`, or a secret's file that Compose mounts and the page makes."""
        known = {each.env for each in OPTIONS}
        ours = {name for name in self.environment() if name.startswith("HARN_")}
        self.assertEqual(ours - known, set())
        secrets = set(self.compose["secrets"])
        self.assertEqual({Path(path).name for path in self.service["environment"].values()}, secrets)
        self.assertEqual(set(self.service["secrets"]), secrets)
        for name in secrets:
            self.assertEqual(self.compose["secrets"][name], {"file": f"./secrets/{name}"})
            self.assertIn(f"> secrets/{name}\n", self.page)
        self.assertIn("/secrets/", (ROOT / ".gitignore").read_text("utf-8").splitlines())
        for name in self.service["environment"]:
            self.assertRegex(name, "^HARN_(ORCHESTRATOR_API_KEYS|SECRET_[A-Z_]+)_FILE$")
            self.assertIn(f"-e {name}=/run/secrets/", self.page)

    def test_command(self) -> None:
        """The image's command is one of harn's, with options that it has."""
        entry, command = json.loads(self.of("ENTRYPOINT")), json.loads(self.of("CMD"))
        self.assertEqual((entry, command[:2]), (["harn"], ["orchestrator", "serve"]))
        self.assertEqual(set(command[2:]) - {f"--{each.name}" for each in OPTIONS if each.is_switch}, set())

    def test_stop(self) -> None:
        """The engine waits longer than a shutdown may take."""
        [patience] = [each.default for each in OPTIONS if each.name == "shutdown-timeout"]
        self.assertEqual(patience, str(SHUTDOWN))
        self.assertGreater(seconds(self.service["stop_grace_period"]), SHUTDOWN + 10)
        self.assertTrue(self.service["init"])
        self.assertEqual(self.of("STOPSIGNAL"), "SIGTERM")

    def test_health(self) -> None:
        """The health check fails unless the server is ready; Compose has the same one as the image."""
        options, _, command = self.of("HEALTHCHECK").partition(" CMD ")
        check = self.service["healthcheck"]
        self.assertEqual(check["test"], ["CMD", *json.loads(command)])
        self.assertEqual(
            options.split(),
            [
                f"--{name.replace('_', '-')}={check[name]}"
                for name in ("interval", "timeout", "start_period", "retries")
            ],
        )
        server = HTTPServer(("127.0.0.1", 0), Ready)
        self.addCleanup(server.server_close)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(server.shutdown)
        words = json.loads(command)
        program = words[2].replace(":8080/", f":{server.server_address[1]}/")
        self.assertNotEqual(program, words[2])
        for status, expected in ((200, True), (503, False)):
            server.status = status  # type: ignore[attr-defined]
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
            self.assertEqual(done.returncode == 0, expected, (status, done.stderr))

    def test_lint(self) -> None:
        """Hadolint, where it is installed, has nothing to say."""
        program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
        if program is None:
            raise SkipTest("hadolint is not installed; it is part of the extra named lint")
        done = subprocess.run([program, str(ROOT / "Containerfile")], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done)
