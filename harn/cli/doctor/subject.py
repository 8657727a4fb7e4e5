"""
The subject of ``harn doctor``: a state directory, a manifest, and the server on them, read once for all checks.

The environment of a server that runs is read from the system where that allows it: secrets are often set for the
service alone, and those of the operator's shell say nothing about it.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import field, frozen
from msgspec import Struct

from harn.cli.client import UNIX, AdminClient, UnixConnection, ask
from harn.cli.demo_secret import read_demo_secret
from harn.cli.place import ServerLocation, ServerTarget
from harn.errors import HarnError, ManifestInvalid
from harn.listener.published_operations import ListPublished, PublishedList, list_published
from harn.manifest.load import check_document
from harn.manifest.model import Manifest
from harn.manifest.source import read_manifest
from harn.model.problem import Problem
from harn.operations.model import Operation
from harn.operations.parameters import Parameters
from harn.options import ServeOptions
from harn.orchestrator.operations import Inspect, Inspection, inspect
from harn.reload.build import installed_rules
from harn.reload.operations import ShowLive, show_live
from harn.reload.results import LiveGenerationInfo
from harn.schedules.operations import ListSchedule, ScheduleList, list_schedule
from harn.store.lock import holder, read_state

R = TypeVar("R", bound=Struct)
PATIENCE = 10.0
"""Seconds that each answer of a server may take."""
MOST_FIRINGS = 1000
"""Firings that are looked at."""


@frozen(kw_only=True)
class Serving:
    """
    A server that runs, as it answers.

    :ivar url: where it listens; None while it does not, or where that is not known.
    :ivar readiness: the status and text of ``/readyz``; None without an answer.
    :ivar inspection, generation, schedule, published: None where it could not be had.
    :ivar problem: says why.
    """

    url: str | None = None
    readiness: tuple[int, str] | None = None
    inspection: Inspection | None = field(default=None, repr=False)
    generation: LiveGenerationInfo | None = field(default=None, repr=False)
    schedule: ScheduleList | None = field(default=None, repr=False)
    published: PublishedList | None = field(default=None, repr=False)
    problem: str = ""


@frozen(kw_only=True)
class Subject:
    """
    Everything that checks read.

    :ivar environ: of the server, where ``is_environ_of_server``; else of this command.
    :ivar has_demo_values: the server is ``harn dev``, which has a demo value for each secret that is not set.
    :ivar network: whether other machines may be asked.
    :ivar is_deep: whether the whole event log is read.
    :ivar now: seconds, Unix.
    :ivar pid: of the process that holds the state directory; 0 where it is not known, None where none does.
    :ivar state: the state file's document, if there is one.
    :ivar manifest: None where it has ``problems``.
    """

    options: ServeOptions
    location: ServerLocation
    environ: Mapping[str, str] = field(repr=False)
    is_environ_of_server: bool = False
    has_demo_values: bool = False
    network: bool
    now: float
    is_deep: bool = False
    pid: int | None = None
    state: Mapping[str, Any] | None = field(default=None, repr=False)
    serving: Serving = Serving()
    manifest: Manifest | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()

    @property
    def state_dir(self) -> str:
        """The path of the state directory, absolute."""
        return self.options.state_dir


def read_subject(
    options: ServeOptions,
    location: ServerLocation,
    environ: Mapping[str, str],
    *,
    network: bool,
    now: float,
    is_deep: bool = False,
) -> Subject:
    """Read the facts that the checks share; one that cannot be read is left to the check that it concerns."""
    pid = holder(options.state_dir)
    served = environ_of(pid) if pid else None
    manifest, problems = read_checked(options)
    return Subject(
        options=options,
        location=location,
        environ=environ if served is None else served,
        is_environ_of_server=served is not None,
        has_demo_values="dev" in arguments_of(pid or 0) and read_demo_secret(options.state_dir) is not None,
        network=network,
        now=now,
        is_deep=is_deep,
        pid=pid,
        state=read_state(options.state_dir),
        serving=Serving() if pid is None else ask_server(location, environ),
        manifest=manifest,
        problems=problems,
    )


def environ_of(pid: int) -> Mapping[str, str] | None:
    """Return the environment that a process was started with; None where the system does not show it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (os.fsdecode(each).partition("=") for each in file.read().split(b"\0") if each)
            return {name: value for name, _, value in pairs}
    except OSError:
        return None


def arguments_of(pid: int) -> Sequence[str]:
    """Return the command line of a process; empty where the system does not show it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(each) for each in file.read().split(b"\0")]
    except OSError:
        return []


def read_checked(options: ServeOptions) -> tuple[Manifest | None, tuple[Problem, ...]]:
    """Return the checked manifest, or its problems."""
    try:
        source = read_manifest(options.manifest, options.manifest_name)
        return check_document(source, None, installed_rules()).manifest, ()
    except ManifestInvalid as error:
        return None, error.problems
    except (HarnError, OSError) as error:
        return None, (Problem(file=options.manifest_name, message=str(error), hint="make it readable for this user"),)


def ask_server(location: ServerLocation, environ: Mapping[str, str]) -> Serving:
    """Return the answers of the server on a state directory."""
    target = ServerTarget(
        location=location, environ=environ, admin_url=None, cacert=None, insecure=True, timeout=PATIENCE
    )
    url = None
    try:
        url = location.needed_url()
        readiness = read_readiness(url)
        client = target.client()
        inspection = ask(client, inspect, Inspect()).result
        generation = ask(client, show_live, ShowLive()).result
    except (HarnError, OSError) as error:
        return Serving(url=url, readiness=None if url is None else read_readiness(url), problem=str(error))
    return Serving(
        url=url,
        readiness=readiness,
        inspection=inspection,
        generation=generation,
        schedule=answer_of(client, list_schedule, ListSchedule(limit=MOST_FIRINGS)),
        published=answer_of(client, list_published, ListPublished()),
    )


def answer_of(client: AdminClient, operation: Operation[Any, Any, R], wanted: Parameters) -> R | None:
    """Return the result of an operation; None where the server, perhaps one of an earlier version, does not give it."""
    try:
        return ask(client, operation, wanted).result
    except (HarnError, OSError):
        return None


def read_readiness(url: str) -> tuple[int, str] | None:
    """Return the status and the text of ``/readyz``; None without an answer of HTTP."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if url.startswith(UNIX):
        connection = UnixConnection(url.removeprefix(UNIX), PATIENCE)
    elif parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=unverified())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read(1000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate: the state directory names the server, and it is looked at only."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
