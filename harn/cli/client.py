"""
A client of the admin API, made of the standard library alone: a command should not pay for an import of Twisted.

One request, one connection, one answer: a report of a reload, or the result of an operation.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.auth.credentials import Credentials, authorization, body_with_request_id
from harn.errors import HarnError
from harn.operations.http import OperationRequest, write_request
from harn.operations.model import Operation
from harn.operations.parameters import Parameters

P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=msgspec.Struct)
EXAMPLE = "http://127.0.0.1:8080"
PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""Reasons that OpenSSL, by its version, gives for an answer without TLS."""
OTHER_PROGRAM = "what answers there is not a harn orchestrator"


class ServerUnreachable(HarnError):
    """Nothing answers at the server's URL, or not as our server would."""


class NoServerUrl(HarnError):
    """A URL that no harn server can have."""


class AnswerTimedOut(HarnError):
    """The server accepted the request and did not answer in time; the operation may still happen."""


class OperationRefused(HarnError):
    """
    The server answered with a problem document.

    :ivar status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerAnswer(Struct, frozen=True, kw_only=True):
    """A server's answer: the HTTP status, and the decoded JSON."""

    status: int
    document: Any

    def expect_ok(self, *names: str) -> Any:
        """
        Return the document of a success: an object that has the members ``names``.

        :raises RequestRefused: the status is not a success.
        :raises ServerUnreachable: the document is something else, as another program's is.
        """
        if 200 <= self.status < 300:
            if not isinstance(self.document, dict) or not self.document.keys() >= set(names):
                raise ServerUnreachable(OTHER_PROGRAM)
            return self.document
        said = self.document.get("detail") or self.document.get("error") if isinstance(self.document, dict) else None
        raise OperationRefused(f"the server answered {self.status}: {said or self.document}", self.status)


UNIX = "unix:"
"""How the URL of a UNIX socket begins."""


class UnixConnection(http.client.HTTPConnection):
    """A connection to a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def fault_of_url(url: str) -> str:
    """Return why ``url`` is not ``http[s]://HOST[:PORT][/PATH]`` or ``unix:PATH``; empty where it is one."""
    if url.startswith(UNIX):
        return "" if os.path.isabs(url.removeprefix(UNIX)) else "it must name the absolute path of a socket"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it must consist of printable ASCII characters without spaces"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    if not host or port == 0:
        return "it must name a host, and a port other than 0 if any"
    if parts.username is not None or parts.query or parts.fragment:
        return "it must have neither user, query nor fragment"
    return ""


class ServerAddress(Struct, frozen=True, kw_only=True):
    """
    Where a server is, and how it is reached.

    :ivar url: ``http://host:port``, ``https://host:port`` or ``unix:PATH``; a path of the first two comes before every
        target.
    :ivar timeout: seconds that each read may take.
    :ivar cacert: path of the certificates to trust; None for the system's.
    """

    url: str
    timeout: float
    cacert: str | None = None
    insecure: bool = False

    def target(self, path: str) -> str:
        """Return the target of a request for ``path``, which may have a query."""
        return path if self.url.startswith(UNIX) else urlsplit(self.url).path.rstrip("/") + path

    def connect(self) -> http.client.HTTPConnection:
        """
        Connect.

        :raises ServerUnreachable: there is no connection; says why, and what to do.
        """
        connection = self._connection()
        try:
            connection.connect()
        except ssl.SSLError as error:
            if error.reason in PLAIN_ANSWERS:
                plain = "http" + self.url[len("https") :]
                said = f"the server at {self.url} does not speak TLS; if it is the right one, write {plain}"
            else:
                said = (
                    f"no trusted connection to {self.url}: {error.reason or error}; name its certificate with --cacert"
                )
            raise ServerUnreachable(said) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name of a host that no host can have
            why = (isinstance(error, OSError) and error.strerror) or error
            raise ServerUnreachable(f"no server answers at {self.url}: {why}") from error
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        """
        Make the connection, still closed.

        :raises ServerUnreachable: the file of certificates cannot be used.
        """
        if self.url.startswith(UNIX):
            return UnixConnection(self.url.removeprefix(UNIX), self.timeout)
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        try:
            context = ssl.create_default_context(cafile=self.cacert)
        except (OSError, ssl.SSLError) as error:
            raise ServerUnreachable(f"--cacert {self.cacert} cannot be used: {error}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=context)


@frozen(kw_only=True)
class AdminClient:
    """
    Asks one server.

    :ivar url, timeout, cacert, insecure: see `ServerAddress`.
    """

    url: str = field()
    credentials: Credentials = field(repr=False)
    timeout: float = 120.0
    cacert: str | None = None
    insecure: bool = False

    @url.validator
    def _check_url(self, attribute: object, url: str) -> None:
        """
        Raise an error for anything but the URL of a server.

        :raises NoServerUrl: says what is wrong with it.
        """
        wrong = fault_of_url(url)
        if wrong:
            shown = "what was given" if "@" in url else repr(url)  # a password may be in it
            raise NoServerUrl(f"{shown} is not the URL of a server: {wrong}; write for example {EXAMPLE}")

    def post(self, target: str, document: Mapping[str, Any], headers: Mapping[str, str] = {}) -> ServerAnswer:
        """Send ``document``, with an id that makes its signature unique."""
        return self._ask(
            "POST", target, body_with_request_id(document), {"Content-Type": "application/json", **headers}
        )

    def send(self, request: OperationRequest) -> ServerAnswer:
        """Send the request of an operation."""
        if request.method == "GET":
            return self._ask("GET", request.target, b"", request.headers)
        return self.post(request.target, request.body, request.headers)

    def _ask(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> ServerAnswer:
        """
        Send a request, and read the answer.

        :raises ServerUnreachable: there is no connection, or it broke.
        :raises AnswerTimedOut: no answer in time.
        :raises SecretUnavailable: there are no credentials to show.
        """
        address = ServerAddress(url=self.url, timeout=self.timeout, cacert=self.cacert, insecure=self.insecure)
        target = address.target(target)
        signed = authorization(self.credentials, method, target, body, time.time())
        connection = address.connect()
        try:
            connection.request(method, target, body or None, {"Authorization": signed, **headers})
            response = connection.getresponse()
            data = response.read()
        except TimeoutError as error:
            raise AnswerTimedOut(f"no answer from {self.url} within {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnreachable(f"the connection to {self.url} broke: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            return ServerAnswer(status=response.status, document=json.loads(data))
        except ValueError as error:
            if response.status < 300:
                raise ServerUnreachable(f"{self.url} does not answer as a harn orchestrator does") from error
            return ServerAnswer(status=response.status, document=data.decode("utf-8", "replace").strip())


class Answered(Struct, Generic[R], frozen=True):
    """
    The answer of a server to an operation.

    :ivar document: the decoded JSON as it came, for ``--json``.
    """

    result: R
    document: Any


def ask(client: AdminClient, operation: Operation[Any, P, R], wanted: P) -> Answered[R]:
    """
    Request an operation of a server.

    :raises RequestRefused: it answered with a problem document.
    :raises ServerUnreachable, AnswerTimedOut: it did not answer, or not as our server would.
    """
    document = client.send(write_request(operation, wanted)).expect_ok()
    try:
        return Answered(msgspec.convert(document, operation.result), document)
    except msgspec.ValidationError as wrong:
        raise ServerUnreachable(OTHER_PROGRAM) from wrong
