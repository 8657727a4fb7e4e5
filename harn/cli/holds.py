"""
``harn orchestrator pause``, ``resume``, ``pauses`` and ``circuits``: what keeps accepted deliveries from beginning.

Triggers, or the whole server, that accept and begin nothing; circuits of destinations that fail.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import click
from msgspec import to_builtins

from harn.circuits.circuit import KEPT_UNUSED, Circuit, restored
from harn.circuits.operations import (
    CircuitList,
    CloseCircuit,
    ListCircuits,
    close_circuit,
    list_circuits,
)
from harn.circuits.operations import describe as describe_circuit
from harn.cli.client import ask
from harn.cli.completion import complete_triggers
from harn.cli.options import option, with_json, with_place
from harn.cli.place import ServerLocation, ServerTarget, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.dispatch.operations import (
    ListPauses,
    Paused,
    PauseList,
    PauseServer,
    PauseTrigger,
    Resumed,
    ResumeServer,
    ResumeTrigger,
    describe_pauses,
    list_pauses,
    pause_server,
    pause_trigger,
    resume_server,
    resume_trigger,
)
from harn.manifest.model import DEAD_LETTER, WAIT, CircuitSpec
from harn.model.display import visible
from harn.operations.parameters import Parameters
from harn.store.holds import CIRCUITS, PAUSES, OpenRecord, held_now, read_circuits, read_pauses

P = TypeVar("P", bound=Parameters)

MOST_PAUSES = 1000
"""Pauses that are listed."""

_FOR = next(each for each in pause_server.fields if each.name == "duration")
_RATE = next(each for each in resume_server.fields if each.name == "rate")
PAUSE_COLUMNS = (
    Column("Trigger", lambda pause: pause.trigger_id or "(the server)"),
    Column("Since", lambda pause: pause.since, drop=2),
    Column("Until", lambda pause: pause.until or "it is resumed"),
    Column("By", lambda pause: pause.actor, drop=1),
)
CIRCUIT_COLUMNS = (
    Column("Trigger", lambda circuit: circuit.trigger_id),
    Column("State", lambda circuit: circuit.state, styles={"open": "red", "half_open": "yellow", "closed": "green"}),
    Column("Failures", lambda circuit: f"{circuit.failures} of {circuit.limit}", drop=3),
    Column("Next try", lambda circuit: circuit.retry_at, drop=1),
    Column("Reset", lambda circuit: circuit.reset, drop=4),
    Column("While open", lambda circuit: circuit.open, drop=2),
)


@click.command()
@with_place
@click.argument("trigger", required=False, shell_complete=complete_triggers)
@click.option("--all", "is_all", is_flag=True, help="Pause every trigger of the server.")
@option(_FOR, _FOR.description)
@with_server
@with_json
def pause(target: ServerTarget, trigger: str | None, is_all: bool, duration: str | None, as_json: bool) -> None:
    """Pause TRIGGER: its events are accepted and kept, and none begins; what runs continues."""
    check_target(trigger, is_all)
    whole = made(PauseServer, duration=duration)
    client = target.client()
    if trigger is None:
        done = ask(client, pause_server, whole)
    else:
        done = ask(client, pause_trigger, PauseTrigger(trigger=trigger, duration=duration))
    print_json(done.document) if as_json else click.echo(describe_paused(done.result))


@click.command()
@with_place
@click.argument("trigger", required=False, shell_complete=complete_triggers)
@click.option("--all", "is_all", is_flag=True, help="Resume the server after `pause --all`.")
@option(_RATE, _RATE.description)
@with_server
@with_json
def resume(target: ServerTarget, trigger: str | None, is_all: bool, rate: str | None, as_json: bool) -> None:
    """Resume TRIGGER after it was paused."""
    check_target(trigger, is_all)
    whole = made(ResumeServer, rate=rate)
    client = target.client()
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
    """Return which triggers are paused, and until when."""
    until = f" until {done.until}" if done.until is not None else "; resume it to begin what is kept meanwhile"
    return f"{done.trigger_id or 'the server'}: paused{until}"


def describe_resumed(done: Resumed) -> str:
    """Return which triggers were resumed, or that none had been paused."""
    name = done.trigger_id or "the server"
    if done.paused:
        return f"{name}: still paused, with the whole server; `resume --all` ends that"
    return f"{name}: resumed" if done.was_paused else f"{name}: was not paused"


@click.command()
@with_place
@with_server
@with_json
def pauses(target: ServerTarget, as_json: bool) -> None:
    """List the pauses: since when, by whom, and until when."""
    client = target.client_if_any()
    wanted = ListPauses(limit=MOST_PAUSES)
    found = stored_pauses(target.location, time.time()) if client is None else ask(client, list_pauses, wanted).result
    if as_json:
        print_json(to_builtins(found))
        return
    draw(Rows(title="Pauses:", columns=PAUSE_COLUMNS, rows=found.pauses, none="nothing is paused"))
    if found.total > len(found.pauses):
        click.echo(f"{found.total - len(found.pauses)} more are paused")


def stored_pauses(place: ServerLocation, now: float) -> PauseList:
    """
    Return the pauses that the next server on a state directory begins with.

    :param now: seconds, Unix.
    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    """
    from harn.cli.sources import open_store

    with open_store(place.state_dir) as store:
        kept = read_pauses(store.ask(store.checkpoints.get(PAUSES)))
    return describe_pauses(held_now(kept, now), MOST_PAUSES)


@click.command()
@with_place
@click.option("--close", "wanted", metavar="TRIGGER", help="Close the circuit of this trigger; what has waited begins.")
@with_server
@with_json
def circuits(target: ServerTarget, wanted: str | None, as_json: bool) -> None:
    """List the circuits of triggers that have one, or close one."""
    if wanted is not None:
        done = ask(target.client(), close_circuit, CloseCircuit(trigger=wanted))
        if as_json:
            print_json(done.document)
        else:
            click.echo(f"{visible(wanted)}: {'closed' if done.result.was_open else 'was closed already'}")
        return
    client = target.client_if_any()
    found = (
        stored_circuits(target.location, time.time())
        if client is None
        else ask(client, list_circuits, ListCircuits()).result
    )
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(Rows(title="Circuits:", columns=CIRCUIT_COLUMNS, rows=found.circuits, none="no trigger has a circuit"))


def stored_circuits(place: ServerLocation, now: float) -> CircuitList:
    """
    Return the circuits of the last server on a state directory as the next one would begin with them.

    Which triggers have one says the generation that served last. Failures of closed circuits are not stored.

    :param now: seconds, Unix.
    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    """
    from harn.cli.sources import StoredGenerations, open_store

    with open_store(place.state_dir) as store:
        records = read_circuits(store.ask(store.checkpoints.get(CIRCUITS)))
    manifest = StoredGenerations(state_dir=place.state_dir, manifest=place.manifest).newest_manifest()
    if manifest is None:  # it is damaged, or the plugins that are installed now do not accept it
        specs = {name: spec_of(record) for name, record in records.items()}
    else:
        specs = {each.id: each.circuit for each in manifest.triggers.values() if each.circuit and each.circuit.failures}
    return CircuitList(
        circuits=tuple(
            describe_circuit(name, stored_circuit(records.get(name), specs[name], now), specs[name])
            for name in sorted(specs)
        )
    )


def stored_circuit(record: OpenRecord | None, spec: CircuitSpec, now: float) -> Circuit:
    """Return the circuit that a server would make of its record, if there is one, at a time (seconds, Unix)."""
    if record is None or now >= record.retry_at + KEPT_UNUSED:
        return Circuit()
    return restored(record.failures, record.retry_at, record.reset, now).within(now, spec)


def spec_of(record: OpenRecord) -> CircuitSpec:
    """Return the settings that a record shows."""
    return CircuitSpec(failures=record.failures, reset=record.reset, open=DEAD_LETTER if record.refuses else WAIT)
