"""``harn orchestrator reload`` and ``plan``: have a running server reload, or say what that would change."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from harn.cli.client import AnswerTimedOut
from harn.cli.operations import Answered, parameters_from, print_json, with_parameters
from harn.cli.output import ending_dry_run
from harn.cli.place import Reach
from harn.cli.reports import exit_status, report_of, show
from harn.cli.shared import with_json, with_place, with_server
from harn.operations.requests import OperationRequest, write_request
from harn.reload.operations import plan as plan_operation
from harn.reload.operations import reload as reload_operation
from harn.reload.results import ReloadResult

SOURCE = "cli"
"""The label of what commands ask for."""
DRY_RUN = {"dry_run": "Only say what would change: exit 0 nothing, 1 something, 2 problems."}
LATE_RELOAD = "the reload goes on; `harn orchestrator events orchestrator.manifest` shows how it ends"
LATE_PLAN = "nothing changes, since this was a dry run; to see what it finds, ask again with a longer --timeout"


@click.command()
@with_place
@with_parameters(reload_operation, without=("source",), helps=DRY_RUN)
@with_server
@with_json
def reload(as_json: bool, **given: Any) -> None:
    """Reload the manifest and the code of the handlers; what is in flight ends as it began."""
    wanted = parameters_from(reload_operation, given, source=SOURCE)
    carry_out(Reach.told(given, os.environ), write_request(reload_operation, wanted), wanted.dry_run, as_json)


@click.command()
@with_place
@with_parameters(plan_operation, without=("source",))
@with_server
@with_json
def plan(as_json: bool, **given: Any) -> None:
    """Show what a reload would change, without changing it: exit 0 nothing, 1 something, 2 problems."""
    wanted = parameters_from(plan_operation, given, source=SOURCE)
    carry_out(Reach.told(given, os.environ), write_request(plan_operation, wanted), True, as_json)


def carry_out(reach: Reach, request: OperationRequest, dry_run: bool, as_json: bool) -> None:
    """
    Request the reload, print the report, and end the process with the report's exit status.
    """
    with ending_dry_run(dry_run):
        answered = ask(reach, request, dry_run, as_json)
        if as_json:
            print_json(answered.document)
        else:
            show(answered.result)
    sys.exit(exit_status(answered.result, dry_run))


def ask(reach: Reach, request: OperationRequest, dry_run: bool, as_json: bool) -> Answered[ReloadResult]:
    """
    Request a reload, or what it would do; give the report.

    :raises AnswerTimedOut: says whether what was asked for goes on.
    """
    client = reach.client()
    try:
        with waiting("planning ..." if dry_run else "reloading ...", as_json):
            answer = client.send(request)
    except AnswerTimedOut as late:
        raise AnswerTimedOut(f"{late}; {LATE_PLAN if dry_run else LATE_RELOAD}") from late
    return report_of(answer, client.url)


def waiting(text: str, as_json: bool) -> AbstractContextManager[object]:
    """Show at a terminal that something goes on; elsewhere do nothing."""
    if as_json or not sys.stdout.isatty():
        return nullcontext()
    from harn.cli.terminal import spinner

    return spinner(text)
