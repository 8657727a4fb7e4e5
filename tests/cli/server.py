"""A stand-in for a running server: a real socket, scripted answers, and a state directory that names it."""

from __future__ import annotations

import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import frozen

from harn.orchestrator.state_directory import replace_file
from harn.store.lock import StateDirectoryLock, state_path


@frozen(kw_only=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body."""
        return json.loads(self.body)


class StubServer:
    """
    Answers each request with the next of ``answers``: a status and a document, bytes, or None for silence.

    :ivar seen: the requests, in order.
    """

    def __init__(self, *answers: tuple[int, Any] | None, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.seen: list[Seen] = []
        self.silence = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def answer(self) -> None:
                """Record the request and answer it."""
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.seen.append(Seen(method=self.command, target=self.path, headers=headers, body=body))
                answer = stub.answers.pop(0)
                if answer is None:
                    stub.silence.wait(10)
                    self.close_connection = True
                    return
                status, document = answer
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                """Answer."""
                self.answer()

            def do_POST(self) -> None:
                """Answer."""
                self.answer()

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self.silence.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def tell_of(url: str, state_dir: str, **more: Any) -> StateDirectoryLock:
    """Make ``state_dir`` say that a server runs at ``url``, in this process; ``more``: what else it is to say."""
    lock = StateDirectoryLock(state_dir)
    lock.acquire()
    state = {"status": "running", "pid": os.getpid(), "listener_url": url, **more}
    replace_file(state_path(state_dir), json.dumps(state).encode())
    return lock
