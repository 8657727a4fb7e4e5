"""The command itself: its options, the list of checks, and how rows are printed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import click
from msgspec import to_builtins

from harn.cli.doctor import configuration, directory, installation, serving, stored, telemetry, timed
from harn.cli.doctor.model import CheckStatus, Row, count_by_status, diagnosis, failure, skipped
from harn.cli.doctor.subject import Subject, read_subject
from harn.cli.options import with_flags, with_json
from harn.cli.place import ServerLocation
from harn.cli.rows import Column, Rows, draw, print_json
from harn.errors import HarnError
from harn.model.display import visible
from harn.options import MANIFEST, OPTIONS, STATE_DIR, ServeOptions

STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red", "SKIP": "dim"}
COLUMNS = (
    Column("Status", lambda row: row.status.value, styles=STYLES),
    Column("Check", lambda row: row.label),
    Column("Finding", lambda row: row.detail, wraps=True),
    Column("What to do", lambda row: row.hint, drop=1, is_below=True, wraps=True),
)

OF_SERVE = tuple(each for each in OPTIONS if each.name in ("bind", "cert", "key"))


@click.command()
@with_flags(MANIFEST, STATE_DIR, *OF_SERVE)
@click.option("--deep", is_flag=True, help="Read the whole event log, which takes minutes for a large one.")
@click.option("--no-network", is_flag=True, help="Ask no other machine; a server on this one is asked all the same.")
@with_json
def doctor(no_network: bool, deep: bool, as_json: bool, **given: Any) -> None:
    """
    Check a state directory, its server if one runs, the manifest and the machine, and say what to do.

    Each finding is a row: OK, WARN (it serves all the same), FAIL (correct it), or SKIP. The exit status is 1 if a row
    is FAIL. Nothing is changed; a file of a few pages is written in the state directory, and removed.
    """
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    location = ServerLocation.of_options(given["config"], given["state_dir"], os.environ)
    with waiting_shown(as_json):
        subject = read_subject(options, location, os.environ, network=not no_network, now=time.time(), is_deep=deep)
        rows = list(run_checks(checks_of(subject)))
    print_json(to_builtins(diagnosis(rows))) if as_json else print_found(rows)
    sys.exit(exit_status(rows))


def waiting_shown(as_json: bool) -> Any:
    """Return a context that shows a spinner at a terminal: the check of a whole event log takes minutes."""
    if as_json or not sys.stdout.isatty():
        return nullcontext()
    from harn.cli.terminal import spinner

    return spinner("checking")


def checks_of(subject: Subject) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yield the rows of every check, in order, with the label that is used where the check fails itself."""
    yield installation.VERSIONS, installation.check_versions(subject)
    yield telemetry.EXTRAS, telemetry.check_extras(subject)
    yield directory.DIRECTORY, directory.check_directory(subject)
    yield directory.LOCK, directory.check_lock(subject)
    yield serving.SERVER, serving.check_server(subject)
    yield directory.DISK, directory.check_disk(subject)
    yield directory.SYNC, directory.check_sync(subject)
    yield directory.FILES, directory.check_files(subject)
    yield stored.CLOCK, stored.check_clock(subject)
    yield stored.EVENT_LOG, stored.check_event_log(subject)
    yield configuration.CONNECTORS, configuration.check_plugins(subject)
    yield installation.CACHE, installation.check_plugin_cache(subject)
    yield configuration.MANIFEST, configuration.check_manifest(subject)
    yield configuration.CODE, configuration.check_code(subject)
    yield configuration.PROVIDERS, configuration.check_secrets(subject)
    yield configuration.CREDENTIALS, configuration.check_credentials(subject)
    yield "handshakes", configuration.check_handshakes(subject)
    yield "triggers", serving.check_triggers(subject)
    yield timed.SCHEDULES, timed.check_schedules(subject)
    yield timed.PUBLISHED, timed.check_published(subject)
    yield stored.DISPATCHER, stored.check_dispatcher(subject)
    yield "destinations", serving.check_destinations(subject)
    yield serving.LISTENER, serving.check_listener(subject)
    yield serving.CERTIFICATE, serving.check_certificate(subject)
    yield telemetry.TRACES, telemetry.check_traces(subject)
    yield installation.UNIT, installation.check_unit(subject)


def run_checks(checks: Iterable[tuple[str, Iterator[Row]]]) -> Iterator[Row]:
    """Yield the rows of each check; one that fails itself is a failure, once for each cause, and the others run."""
    said: list[str] = []
    for label, rows in checks:
        try:
            for row in rows:
                said.append(row.detail)
                yield row
        except (HarnError, OSError) as error:
            if str(error) and any(str(error) in each for each in said):
                yield skipped(label, "cannot be checked, for the same reason")
                continue
            said.append(str(error))
            yield failure(label, f"cannot be checked: {error}", "correct that first; run this as the server's user")
        except Exception as error:  # its text may hold anything
            reason = f"cannot be checked: {type(error).__name__}"
            yield failure(label, reason, "report this as an error of harn, with the output of `harn --version`")


def exit_status(rows: Iterable[Row]) -> int:
    """Return 1 where a row is a failure, else 0."""
    return 1 if any(row.status is CheckStatus.FAIL for row in rows) else 0


def print_found(rows: Sequence[Row]) -> None:
    """Print rows: as a table at a terminal, elsewhere one line each, which begins with the status and the label."""
    if sys.stdout.isatty():
        draw(Rows(title="", columns=COLUMNS, rows=rows))  # type: ignore[arg-type]
    else:
        for line in lines_of(rows):
            click.echo(line)
    counts = ", ".join(f"{count} {status}" for status, count in count_by_status(rows).items() if count)
    click.echo(f"{len(rows)} checks: {counts}")


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """Return rows as lines: status, label, finding, and after a semicolon what to do."""
    width = min(30, max((len(row.label) for row in rows), default=0))
    for row in rows:
        hint = f"; {row.hint}" if row.hint else ""
        yield visible(f"{row.status.value:<4}  {row.label:<{width}}  {row.detail}{hint}")
