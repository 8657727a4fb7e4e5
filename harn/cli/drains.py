"""``harn orchestrator drains``: what versions that were replaced still hold; watch them end, or end them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from harn.cli.client import AnswerTimedOut, RequestRefused, ServerUnreachable
from harn.cli.inspect import section
from harn.cli.output import warn
from harn.cli.place import NoServer, Reach
from harn.cli.plans import facts
from harn.cli.shared import with_json, with_place, with_server
from harn.errors import HarnError
from harn.model.visible import visible

INTERVAL = 1.0
"""Seconds between two looks."""
PASSING = ("age_seconds",)
"""What changes by itself, and is no news."""

Drain = Mapping[str, Any]


@click.command()
@with_place
@click.option("--watch", is_flag=True, help="Look again every second, until nothing drains or Ctrl-C.")
@click.option("--cancel", metavar="BINDING", help="Give up what this version still holds: to the dead letters.")
@click.option("--move", metavar="BINDING", help="Move what this version has not begun to the newest one.")
@with_server
@with_json
def drains(watch: bool, cancel: str | None, move: str | None, as_json: bool, **given: Any) -> None:
    """List the versions that drain; a BINDING is for example gh@v1."""
    if sum((watch, cancel is not None, move is not None)) > 1:
        raise click.UsageError("--watch, --cancel and --move exclude each other")
    reach = Reach.told(given, os.environ)

    def read() -> Sequence[Drain]:
        # Found anew each time: a server that was restarted may have another address.
        found: Sequence[Drain] = reach.client().get("/admin/drains").expect_list("drains")
        return found

    if cancel is not None or move is not None:
        action = "cancel" if move is None else "move"
        done = reach.client().post(f"/admin/drains/{action}", {"binding": cancel if move is None else move}).expect_ok()
        click.echo(json.dumps(done, indent=2) if as_json else describe_done(done))
    elif watch:
        try:
            show_watched(snapshots(read, time.sleep, say_away), as_json)
        except KeyboardInterrupt:
            return
    else:
        show(read(), as_json)


def describe_done(done: Mapping[str, Any]) -> str:
    """Say what happened to the deliveries that a version held."""
    if "cancelled" in done:
        return f"{done.get('binding')}: {done['cancelled']} cancelled, to the dead letters"
    target = done.get("to")
    return f"{done.get('binding')}: {done.get('moved')} moved" + (f" to {target}" if target else "")


def snapshots(
    read: Callable[[], Sequence[Drain]],
    sleep: Callable[[float], None],
    away: Callable[[HarnError], None],
) -> Iterator[Sequence[Drain]]:
    """
    Give what drains, again and again; the last time when nothing does.

    :param away: told once each time that a server which has answered does so no more: it is looked for until it does.
    :raises HarnError: the first look failed already, or the server refuses to tell.
    """
    has_answered = is_away = False
    while True:
        try:
            found = read()
        except HarnError as error:
            if not has_answered or not may_come_back(error):
                raise
            if not is_away:
                away(error)
            is_away = True
        else:
            has_answered, is_away = True, False
            yield found
            if not found:
                return
        sleep(INTERVAL)


def may_come_back(error: HarnError) -> bool:
    """Tell whether a server, or what stands before it, answers like this while it is restarted."""
    if isinstance(error, RequestRefused):
        return error.status >= 500
    return isinstance(error, ServerUnreachable | AnswerTimedOut | NoServer)


def say_away(error: HarnError) -> None:
    """Say that the server does not answer now."""
    warn(f"{error}; looking for it until it answers, or Ctrl-C")


def show(found: Sequence[Drain], as_json: bool) -> None:
    """Print what drains now."""
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif sys.stdout.isatty():
        from harn.cli.terminal import print_drains

        print_drains(found)
    else:
        for line in section("Drains:", found):
            click.echo(line)


def show_watched(found: Iterator[Sequence[Drain]], as_json: bool) -> None:
    """Print what drains as it changes: drawn anew at a terminal, elsewhere a line for each change."""
    if as_json:
        for each in found:
            click.echo(json.dumps(each, separators=(",", ":")))
    elif sys.stdout.isatty():
        from harn.cli.terminal import watch_drains

        watch_drains(found)
    else:
        for line in news(found):
            click.echo(visible(line))


def news(found: Iterator[Sequence[Drain]]) -> Iterator[str]:
    """Give a line for each version that is new or changed, for each that has ended, and one when nothing drains."""
    before: dict[str, Drain] = {}
    for drains_now in found:
        now: dict[str, Drain] = {str(each["binding"]): each for each in drains_now}
        for binding in before:
            if binding not in now:
                yield f"- binding={binding} drained"
        for binding, each in now.items():
            if lasting(each) != lasting(before.get(binding, {})):
                yield f"- {facts(each)}"
        before = now
    if not before:
        yield "nothing drains"


def lasting(drain: Drain) -> dict[str, Any]:
    """Give what is news when it changes."""
    return {name: value for name, value in drain.items() if name not in PASSING}
