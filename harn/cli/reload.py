"""``harn orchestrator reload``: ask a running server to reload, and say what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlencode

import click

from harn.cli.client import Answer, AnswerTimedOut, ServerUnreachable
from harn.cli.place import Place, make_client
from harn.cli.shared import with_json, with_place, with_server

UNCHANGED, CHANGES, PROBLEMS = 0, 1, 2
"""Exit statuses of a dry run."""


@click.command()
@with_place
@click.option("--dry-run", is_flag=True, help="Only say what would change: exit 0 nothing, 1 something, 2 problems.")
@click.option("--force", is_flag=True, help="Reload even if nothing has changed.")
@click.option("--if-match", metavar="ETAG", help="Only if this is still the live generation (GET /admin/generation).")
@with_server
@with_json
def reload(
    config: str | None,
    state_dir: str | None,
    dry_run: bool,
    force: bool,
    if_match: str | None,
    admin_url: str | None,
    cacert: str | None,
    insecure: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Reload the manifest and the code of the handlers; what is in flight ends as it began."""
    url = admin_url or Place.told(config, state_dir, os.environ).needed_url()
    asked = {name: "true" for name, wanted in (("dry_run", dry_run), ("force", force)) if wanted}
    target = "/admin/reload" + (f"?{urlencode(asked)}" if asked else "")
    headers = {"If-Match": if_match} if if_match else {}
    client = make_client(url, os.environ, cacert, insecure, timeout)
    try:
        with waiting("reloading ...", as_json):
            answer = client.post(target, {"source": "cli"}, headers)
    except AnswerTimedOut as late:
        goes_on = "the reload goes on; `harn orchestrator events orchestrator.manifest` shows how it ends"
        raise AnswerTimedOut(f"{late}; {goes_on}") from late
    report = answer.document
    if not (isinstance(report, dict) and report.get("status") in ("ok", "error")):
        answer.expect_ok()
        raise ServerUnreachable(f"{url} does not answer as a harn orchestrator does")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        show(report)
    sys.exit(exit_status(answer, dry_run))


def exit_status(answer: Answer, dry_run: bool) -> int:
    """Give the exit status for a report."""
    report = answer.document
    if report["status"] != "ok":
        return PROBLEMS if dry_run else 1
    if not dry_run:
        return 0
    summary = report["summary"]
    return CHANGES if summary["added"] or summary["modified"] or summary["removed"] else UNCHANGED


def waiting(text: str, as_json: bool) -> AbstractContextManager[object]:
    """Show at a terminal that something goes on; elsewhere do nothing."""
    if as_json or not sys.stdout.isatty():
        return nullcontext()
    from harn.cli.terminal import spinner

    return spinner(text)


def show(report: Mapping[str, Any]) -> None:
    """Print a report for people: a success on stdout, an error on stderr; in colours where that is a terminal."""
    is_error = report["status"] != "ok"
    lines = describe_error(report) if is_error else describe_success(report)
    stream = sys.stderr if is_error else sys.stdout
    if stream.isatty():
        from harn.cli.terminal import print_lines

        print_lines(lines, stream)
        return
    for text, _ in lines:
        click.echo(text, err=is_error)


def describe_success(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the lines, each with its style, for a reload that went well, or would."""
    summary, changes = report["summary"], report.get("changes", {})
    added, modified, removed = summary["added"], summary["modified"], summary["removed"]
    said = "reload (dry run)" if report.get("dry_run") else "reload ok"
    yield f"{said} via {report['source']} (+{len(added)} ~{len(modified)} -{len(removed)})", "bold"
    for trigger_id in added:
        yield f"  + {trigger_id}", "green"
    for trigger_id in modified:
        why = ", ".join(changes.get(trigger_id, ()))
        yield f"  ~ {trigger_id}" + (f": {why}" if why else ""), "yellow"
    for trigger_id in removed:
        yield f"  - {trigger_id}", "red"
    for each in report.get("draining", ()):
        yield f"  draining {each['binding']}: {each['in_flight']} in flight", ""
    for setting in report.get("requires_restart", ()):
        yield f"  requires a restart: {setting}", "magenta"
    for warning in report.get("warnings", ()):
        yield f"  warning: {warning}", "magenta"
    yield f"  generation {report['generation']}", ""


def describe_error(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the lines, each with its style, for a reload that failed: how many problems, then each of them once."""
    problems = report["problems"]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    yield f"error: reload failed at {report['stage']}: {count if problems else report['error']}", "bold red"
    for problem in problems:
        yield describe_problem(problem), ""
    yield f"generation {report['generation']} goes on serving", "bold"


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Write a problem as ``file:line: where: message; hint``."""
    place = problem["file"] if problem.get("line") is None else f"{problem['file']}:{problem['line']}"
    said = f"{problem['message']}; {problem['hint']}" if problem.get("hint") else problem["message"]
    return ": ".join(part for part in (place, problem.get("where"), said) if part)
