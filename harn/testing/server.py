"""
A real orchestrator in a process of its own, for tests of its behaviour from outside.

Blocking code, for synchronous tests: nothing here needs a reactor. Tests wait only by `wait_until`, which always has a
limit.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import SkipTest
from urllib.parse import urlsplit

from attrs import field, frozen
from msgspec import Struct

import harn
from harn.testing.signers import github_headers

T = TypeVar("T")

SERVE = (sys.executable, "-m", "harn", "orchestrator", "serve")
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
READY = re.compile(r"HTTP listener ready on (?P<url>https?://\S+)")
API_KEY = "test-key"
"""The bearer key of these servers, unless their environment sets another."""
GITHUB_SECRET = b"test-secret"
"""The value of the secret ``github/webhook-secret``."""


class StillWaiting(AssertionError):
    """A condition that a test waited for did not become true in time."""


def wait_until(condition: Callable[[], T], what: str, timeout: float = 180.0) -> T:
    """
    Return the first true value of ``condition``, asking again every few milliseconds.

    :param timeout: seconds; it only ends a test that hangs, also on a machine that does much else.
    :raises StillWaiting: it did not become true; the message has ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise StillWaiting(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@frozen
class Answer:
    """The answer of a server: ``headers`` by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=lambda body: repr(body[:300]))

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)


class Completed(Struct, frozen=True):
    """The exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


class Connection:
    """
    One kept-alive connection.

    :param url: of the server; a path in it does not count.
    :param context: for TLS.
    """

    def __init__(self, url: str, timeout: float = 60.0, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._http = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        )

    @property
    def is_open(self) -> bool:
        """Whether the connection is kept."""
        return self._http.sock is not None

    def request(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        """Send a request, and read the whole answer."""
        self._http.request(method, target, body or None, dict(headers))
        response = self._http.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def deliver(
        self,
        path: str,
        body: bytes = b'{"action": "opened"}',
        *,
        delivery: str,
        event: str = "issues",
        secret: bytes = GITHUB_SECRET,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """Post a signed delivery of GitHub; ``headers`` are added to, or replace, its own."""
        signed = {**github_headers(secret, body, event, delivery), **headers}
        return self.request("POST", path, body, signed)

    def close(self) -> None:
        """Close it."""
        self._http.close()


def environment(extra: Mapping[str, str | None] = {}) -> dict[str, str]:
    """
    Return the environment of servers and commands: this process's without ``HARN_`` variables, a key, GitHub's secret.

    :param extra: variables to set; None removes one.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith("HARN_")}
    root = str(Path(harn.__file__).resolve().parents[1])
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode a start costs a third more
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (root, found.get("PYTHONPATH"))))
    found["HARN_SECRET_GITHUB_WEBHOOK_SECRET"] = GITHUB_SECRET.decode()
    found["HARN_ORCHESTRATOR_API_KEYS"] = API_KEY
    for name, value in extra.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found


def run_harn(
    directory: str | Path, *arguments: str, environ: Mapping[str, str] | None = None, timeout: float = 180.0
) -> Completed:
    """Run the ``harn`` command to its end in ``directory``."""
    done = subprocess.run(
        [sys.executable, "-m", "harn", *arguments],
        cwd=directory,
        env=environment() if environ is None else dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Completed(done.returncode, done.stdout, done.stderr)


class ServerProcess:
    """
    One server: its process, its URL, its state directory.

    :param directory: its working directory; ``harn.toml`` in it is the manifest, ``state`` the state directory.
    :param arguments: further ones of ``serve``.
    :param launcher: the command without the options: `SERVE`, or `TWISTD` with twistd's own options and the plugin's
        name; before it may stand a command that runs it, for example to set limits.
    :ivar url: where it listens, once it is ready.
    :ivar lines: the lines of its standard error so far.
    :ivar read_from: the number after which `records` reads a topic, for tests that share a server.
    """

    def __init__(
        self,
        directory: str | Path,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        launcher: Sequence[str] = SERVE,
        config: str = "harn.toml",
        state_dir: str = "state",
        bind: str = "127.0.0.1:0",
    ) -> None:
        self.directory = Path(directory).resolve()
        self.environ = environment() if environ is None else dict(environ)
        self.state_dir = self.directory / state_dir
        self.lines: list[str] = []
        self.read_from: dict[str, int] = {}
        self._url: str | None = None
        places = ("--config", config, "--state-dir", state_dir, "--bind", bind)
        self._output = open(self.directory / "stdout.log", "ab")  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            [*launcher, *places, *arguments],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
            found = READY.search(self.lines[-1])
            if found is not None:
                self._url = found["url"]

    # Its life

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    @property
    def stderr(self) -> str:
        """Its standard error so far."""
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._url is not None, f"the server is not ready:\n{self.stderr}"
        return self._url

    def wait_ready(self, timeout: float = 180.0) -> ServerProcess:
        """Wait until it has logged where it listens."""
        wait_until(lambda: self._url or self.process.poll() is not None, f"the server's URL; {self.lines}", timeout)
        if self._url is None:
            self._reader.join(5.0)
            raise StillWaiting(f"the server ended with {self.process.returncode}:\n{self.stderr}")
        return self

    def wait_for_line(self, pattern: str, timeout: float = 180.0) -> re.Match[str]:
        """Wait for a line of its standard error in which ``pattern`` is found."""
        compiled = re.compile(pattern)

        def said() -> re.Match[str] | None:
            for line in list(self.lines):
                found = compiled.search(line)
                if found is not None:
                    return found
            return None

        found = wait_until(said, f"a line with {pattern!r} on the server's standard error", timeout)
        assert found is not None
        return found

    def wait(self, timeout: float = 120.0) -> int:
        """Wait for its end and the end of its output; return its exit status."""
        wait_until(lambda: self.process.poll() is not None, f"the server's end; {self.lines[-10:]}", timeout)
        self._reader.join(5.0)
        return self.process.returncode

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def terminate(self, timeout: float = 120.0) -> int:
        """Send it SIGTERM, and wait; return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it with SIGKILL, immediately."""
        self.process.kill()
        self.wait()

    def stop(self) -> None:
        """Kill it and every process of its session, for clean-up. Idempotent."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(5.0)
        self._output.close()
        assert self.process.stderr is not None
        self.process.stderr.close()

    # Its state, seen from outside

    def state(self) -> dict[str, Any]:
        """Read its ``orchestrator-state.json``."""
        document: dict[str, Any] = json.loads((self.state_dir / "orchestrator-state.json").read_bytes())
        return document

    def children(self) -> list[int]:
        """Return the process ids of its children, those included that ended and were not waited for."""
        found: set[int] = set()
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
        return sorted(found)

    def descriptors(self) -> int:
        """Count its open files."""
        directory = f"/proc/{self.pid}/fd"
        try:
            return len(os.listdir(directory))
        except PermissionError:  # it closes its memory to all but root; some kernels still show the number
            if not (count := os.stat(directory).st_size):
                raise SkipTest("only root can count the open files of a server here") from None
            return count

    def resident(self) -> int:
        """Return its resident memory in KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    # Talking to it

    def connect(self, timeout: float = 60.0, context: ssl.SSLContext | None = None) -> Connection:
        """Make a kept-alive connection."""
        return Connection(self.url, timeout, context)

    def request(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        """Send a request on a new connection, and read the whole answer."""
        connection = self.connect()
        try:
            return connection.request(method, target, body, headers)
        finally:
            connection.close()

    def deliver(self, path: str, body: bytes = b'{"action": "opened"}', **more: Any) -> Answer:
        """Post a signed delivery of GitHub on a connection of its own; see `Connection.deliver`."""
        connection = self.connect()
        try:
            return connection.deliver(path, body, **more)
        finally:
            connection.close()

    def admin(
        self,
        method: str,
        target: str,
        document: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = {},
        key: str = API_KEY,
    ) -> Answer:
        """Send a request to the admin API with a bearer key."""
        body = b"" if document is None else json.dumps(document).encode()
        return self.request(method, target, body, {"Authorization": f"Bearer {key}", **headers})

    def reload(self, query: str = "", headers: Mapping[str, str] = {}) -> Answer:
        """Request a reload."""
        return self.admin("POST", f"/admin/reload{query}", {}, headers)

    def generation(self) -> dict[str, Any]:
        """Return the answer of ``GET /admin/generation``."""
        document: dict[str, Any] = self.admin("GET", "/admin/generation").json()
        return document

    def bindings(self) -> list[dict[str, Any]]:
        """Return the live and draining versions that ``GET /admin/bindings`` lists."""
        found: list[dict[str, Any]] = self.admin("GET", "/admin/bindings").json()["bindings"]
        return found

    def records(self, topic: str, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Read a topic through the admin API, or, when the server has ended, with the command for it."""
        after = max(after, self.read_from.get(topic, 0))
        if self.process.poll() is None:
            answer = self.admin("GET", f"/admin/events/{topic}?after={after}&limit={limit}")
            assert answer.status == 200, answer
            found: list[dict[str, Any]] = answer.json()["records"]
            return found
        places = ("--state-dir", str(self.state_dir), "--after", str(after), "--limit", str(limit), "--json")
        done = run_harn(self.directory, "orchestrator", "events", topic, *places, environ=self.environ)
        assert done.status == 0, done
        return [json.loads(line) for line in done.stdout.splitlines()]
