"""
``harn orchestrator fire``, ``export`` and ``import``: a synthetic event, an event as a file, a file as a new delivery.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from harn.cli.client import ask
from harn.cli.completion import complete_data
from harn.cli.options import parameters_from, read_json_data, with_json, with_parameters, with_place
from harn.cli.place import ServerTarget, with_server
from harn.cli.rows import format_value, print_json
from harn.cli.sources import find_source
from harn.deliveries.operations import export_fixture, import_fixture
from harn.dispatch.operations import fire as fire_operation
from harn.errors import HarnError
from harn.model.display import visible
from harn.model.event import fixture_document, read_fixture

FIELDS = (
    "binding_id",
    "binding_version",
    "event_id",
    "status",
    "replay_of_event_id",
    "dlq_entry_id",
    "error",
    "result",
)


FAILED = ("waiting", "dlq")
"""Statuses of an event whose handler failed: with another attempt, or without."""


class FileExists(HarnError):
    """A file is there already, and was not to be replaced."""


class FixtureWrong(HarnError):
    """A file that is not a fixture, or cannot be read."""


@click.command(name="export")
@with_place
@with_parameters(export_fixture, arguments=("event_id",))
@click.argument("file", required=False, type=click.Path(dir_okay=False, writable=True))
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
@with_server
@with_json
def export(target: ServerTarget, file: str | None, force: bool, as_json: bool, **given: Any) -> None:
    """
    Write the event of EVENT_ID as a fixture to FILE, or to standard output.

    Secrets and signatures are redacted. Feed it to a handler in a test with harn.testing.handlers, or to a server with
    harn orchestrator import. A FILE that is there already is not replaced without --force.
    """
    fixture = find_source(target).export(parameters_from(export_fixture, given))
    document = fixture_document(fixture)
    if file is None:
        print_json(document)
        return
    write_file(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n", replaces=force)
    if as_json:
        print_json({"event_id": fixture.envelope.id, "file": file, "redacted": fixture.redacted})
    else:
        note = " (secrets redacted)" if fixture.redacted else ""
        click.echo(f"exported {fixture.envelope.id} to {file}{note}")


def write_file(file: str, text: str, *, replaces: bool) -> None:
    """
    Write a text to a file, or to a pipe or device such as ``/dev/stdout``.

    :raises FileExists: there is a file of that name, and ``replaces`` is False.
    :raises OSError: it cannot be written.
    """
    is_special = os.path.exists(file) and not os.path.isfile(file)
    try:
        with open(file, "w" if replaces or is_special else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise FileExists(f"{file} is there already; give another name, or --force to replace it") from None


@click.command(name="import")
@with_place
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@with_parameters(import_fixture, without=("fixture",))
@with_server
@with_json
def import_(target: ServerTarget, file: str, as_json: bool, **given: Any) -> None:
    """
    Send the fixture in FILE (- for standard input) to a running server as a new delivery.

    Filter and dedupe key are not evaluated.
    """
    wanted = parameters_from(import_fixture, given, fixture=read_document(file))
    answered = ask(target.client(), import_fixture, wanted)
    if as_json:
        print_json(answered.document)
    else:
        found = answered.result
        click.echo(f"imported as {found.event_id} for {found.binding}")


def read_document(file: str) -> Any:
    """
    Read a fixture's document, and check it.

    :raises FixtureWrong: it is not one.
    """
    try:
        if file == "-":
            document = json.load(sys.stdin)
        else:
            with open(file, encoding="utf-8") as source:
                document = json.load(source)
        read_fixture(document)
    except RecursionError:
        raise FixtureWrong(f"{file}: not a fixture: its JSON is nested too deeply") from None
    except ValueError as error:
        raise FixtureWrong(f"{file}: not a fixture: {error}") from error
    return document


@click.command()
@with_place
@with_parameters(fire_operation, arguments=("trigger",), without=("payload",), metavars={"trigger": "TRIGGER_ID"})
@click.option(
    "-d",
    "--data",
    metavar="TEXT|@FILE|-",
    help="The event's body, JSON: as text, of a file, or from stdin.",
    shell_complete=complete_data,
)
@with_server
@with_json
def fire(target: ServerTarget, data: str | None, as_json: bool, **given: Any) -> None:
    """
    Send a synthetic event to the trigger TRIGGER_ID, and print the outcome.

    It passes no signature and no URL: `harn send` makes a real request. Without --data the event is an example. The
    exit status is 1 when the handler failed, also where another attempt follows.
    """
    payload = None if data is None else read_json_data(data, "--data", "harn send posts any bytes")
    wanted = parameters_from(fire_operation, given, payload=payload)
    answered = ask(target.client(), fire_operation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        click.echo("Synthetic event dispatched:")
        for name in FIELDS:
            click.echo(visible(f"- {name}={format_value(getattr(answered.result, name))}"))
    sys.exit(1 if answered.result.status in FAILED else 0)
