"""``harn orchestrator pause`` and ``resume``: triggers, or the whole server, that accept and begin nothing."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import click

from harn.cli.operations import ask, option, print_json
from harn.cli.place import Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.dispatch.pause_operations import (
    Paused,
    PauseServer,
    PauseTrigger,
    Resumed,
    ResumeServer,
    ResumeTrigger,
    pause_server,
    pause_trigger,
    resume_server,
    resume_trigger,
)
from harn.operations.parameters import Parameters

P = TypeVar("P", bound=Parameters)

_FOR = next(each for each in pause_server.fields if each.name == "duration")
_RATE = next(each for each in resume_server.fields if each.name == "rate")


@click.command()
@with_place
@click.argument("trigger", required=False)
@click.option("--all", "is_all", is_flag=True, help="Pause every trigger of the server.")
@option(_FOR, _FOR.description)
@with_server
@with_json
def pause(trigger: str | None, is_all: bool, duration: str | None, as_json: bool, **given: Any) -> None:
    """Pause TRIGGER: its events are accepted and kept, and none begins; what runs goes on."""
    check_target(trigger, is_all)
    whole = made(PauseServer, duration=duration)
    client = Reach.told(given, os.environ).client()
    if trigger is None:
        done = ask(client, pause_server, whole)
    else:
        done = ask(client, pause_trigger, PauseTrigger(trigger=trigger, duration=duration))
    print_json(done.document) if as_json else click.echo(describe_paused(done.result))


@click.command()
@with_place
@click.argument("trigger", required=False)
@click.option("--all", "is_all", is_flag=True, help="Resume the server after `pause --all`.")
@option(_RATE, _RATE.description)
@with_server
@with_json
def resume(trigger: str | None, is_all: bool, rate: str | None, as_json: bool, **given: Any) -> None:
    """Resume TRIGGER after it was paused."""
    check_target(trigger, is_all)
    whole = made(ResumeServer, rate=rate)
    client = Reach.told(given, os.environ).client()
    if trigger is None:
        done = ask(client, resume_server, whole)
    else:
        done = ask(client, resume_trigger, ResumeTrigger(trigger=trigger, rate=rate))
    print_json(done.document) if as_json else click.echo(describe_resumed(done.result))


def made(kind: type[P], **values: Any) -> P:
    """
    Return the parameters of an operation.

    :raises click.UsageError: a value is wrong.
    """
    try:
        return kind(**values)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None


def check_target(trigger: str | None, is_all: bool) -> None:
    """
    Make sure that one trigger is named, or all are.

    :raises click.UsageError: neither is, or both.
    """
    if is_all == (trigger is not None):
        raise click.UsageError("name a TRIGGER, or give --all")


def describe_paused(done: Paused) -> str:
    """Return what is paused, and until when."""
    until = f" until {done.until}" if done.until is not None else "; resume it to begin what is kept meanwhile"
    return f"{done.trigger_id or 'the server'}: paused{until}"


def describe_resumed(done: Resumed) -> str:
    """Return what was resumed, or that it had not been paused."""
    name = done.trigger_id or "the server"
    if done.paused:
        return f"{name}: still paused, with the whole server; `resume --all` ends that"
    return f"{name}: resumed" if done.was_paused else f"{name}: was not paused"
