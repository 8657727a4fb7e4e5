"""``harn orchestrator reload`` and ``plan``: have a running server reload, or say what that would change."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlencode

import click

from harn.cli.arguments import WholeNumber, check_limit, check_part, check_while
from harn.cli.client import AnswerTimedOut
from harn.cli.output import complain, describe
from harn.cli.place import Reach
from harn.cli.reports import PROBLEMS, exit_status, report_of, show
from harn.cli.shared import with_json, with_place, with_server
from harn.errors import HarnError

WISHES = ("force", "ramp", "confirm_within", "revert_on_failures", "min", "for", "replay")
"""Options of the query, as flags of the same names."""
LATE_RELOAD = "the reload goes on; `harn orchestrator events orchestrator.manifest` shows how it ends"
LATE_PLAN = "nothing changes, since this was a dry run; to see what it finds, ask again with a longer --timeout"


def with_wishes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what a reload may be asked beside to happen."""
    for option in reversed(
        (
            click.option("--force", is_flag=True, help="Reload even if nothing has changed."),
            click.option(
                "--if-match",
                metavar="ETAG",
                help="Only if this is still the live generation (GET /admin/generation).",
            ),
            click.option(
                "--ramp",
                callback=check_part,
                metavar="PERCENT",
                help="Let modified triggers take this share of new deliveries first; see `ramp`.",
            ),
            click.option(
                "--confirm-within",
                callback=check_while,
                metavar="DURATION",
                help="Roll back by itself unless `confirm` comes in this time, for example 60s.",
            ),
            click.option(
                "--revert-on-failures",
                callback=check_limit,
                metavar="PERCENT",
                help="Roll back by itself when more attempts of the new versions fail, for example 20%.",
            ),
            click.option(
                "--min",
                type=WholeNumber(1, 1_000_000),
                metavar="N",
                help="With --revert-on-failures: judge nothing before N attempts; 20 if not given.",
            ),
            click.option(
                "--for",
                callback=check_while,
                metavar="DURATION",
                help="With --revert-on-failures: for how long, if not what the manifest says.",
            ),
            click.option(
                "--replay",
                type=WholeNumber(1, 1000),
                metavar="N",
                help="In a dry run: try the new rules on the last N recorded events of each changed trigger.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@with_place
@click.option("--dry-run", is_flag=True, help="Only say what would change: exit 0 nothing, 1 something, 2 problems.")
@with_wishes
@with_server
@with_json
def reload(dry_run: bool, as_json: bool, **given: Any) -> None:
    """Reload the manifest and the code of the handlers; what is in flight ends as it began."""
    if given["replay"] is not None and not dry_run:
        raise click.UsageError("--replay changes nothing and goes with --dry-run, or with `plan`")
    wishes = wishes_of(given)
    target = "/admin/reload?" + urlencode({**({"dry_run": "true"} if dry_run else {}), **wishes})
    carry_out(Reach.told(given, os.environ), target.rstrip("?"), {"source": "cli"}, given["if_match"], dry_run, as_json)


@click.command()
@with_place
@with_wishes
@with_server
@with_json
def plan(as_json: bool, **given: Any) -> None:
    """Say all that a reload would change, and change nothing: exit 0 nothing, 1 something, 2 problems."""
    target = "/admin/plan?" + urlencode(wishes_of(given))
    carry_out(Reach.told(given, os.environ), target.rstrip("?"), {"source": "cli"}, given["if_match"], True, as_json)


def wishes_of(given: Mapping[str, Any]) -> dict[str, str]:
    """
    Give the options of the query.

    :raises click.UsageError: some of them do not go together.
    """
    if given["revert_on_failures"] is None:
        for name in ("min", "for"):
            if given[name] is not None:
                raise click.UsageError(f"--{name} says when failures are too many; it needs --revert-on-failures")
    found = {name: given[name] for name in WISHES if given[name] not in (None, False)}
    return {name: "true" if value is True else str(value) for name, value in found.items()}


def carry_out(
    reach: Reach, target: str, body: Mapping[str, Any], if_match: str | None, dry_run: bool, as_json: bool
) -> None:
    """
    Ask, print the report, and end the process with the exit status that it means.

    A dry run that could not be made is a problem (2): 1 means that something would change.
    """
    try:
        report = ask(reach, target, body, if_match, dry_run, as_json)
        if as_json:
            click.echo(json.dumps(report, indent=2))
        else:
            show(report)
    except (HarnError, OSError) as error:
        if not dry_run:
            raise
        complain(describe(error) if isinstance(error, OSError) else str(error))
        sys.exit(PROBLEMS)
    sys.exit(exit_status(report, dry_run))


def ask(
    reach: Reach, target: str, body: Mapping[str, Any], if_match: str | None, dry_run: bool, as_json: bool
) -> Mapping[str, Any]:
    """
    Ask for a reload, or what it would do; give the report.

    :raises AnswerTimedOut: says what becomes of what was asked for.
    """
    client = reach.client()
    try:
        with waiting("planning ..." if dry_run else "reloading ...", as_json):
            answer = client.post(target, body, {"If-Match": if_match} if if_match else {})
    except AnswerTimedOut as late:
        raise AnswerTimedOut(f"{late}; {LATE_PLAN if dry_run else LATE_RELOAD}") from late
    return report_of(answer, client.url)


def waiting(text: str, as_json: bool) -> AbstractContextManager[object]:
    """Show at a terminal that something goes on; elsewhere do nothing."""
    if as_json or not sys.stdout.isatty():
        return nullcontext()
    from harn.cli.terminal import spinner

    return spinner(text)
