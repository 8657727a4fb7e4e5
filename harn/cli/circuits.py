"""``harn orchestrator circuits``: the state of each circuit, and closing one."""

from __future__ import annotations

import os
from typing import Any

import click
from msgspec import to_builtins

from harn.circuits.operations import CloseCircuit, ListCircuits, close_circuit, list_circuits
from harn.cli.operations import ask, print_json
from harn.cli.place import Reach
from harn.cli.rows import Column, Rows, draw
from harn.cli.shared import with_json, with_place, with_server
from harn.model.display import visible

COLUMNS = (
    Column("Trigger", lambda circuit: circuit.trigger_id),
    Column("State", lambda circuit: circuit.state, styles={"open": "red", "half_open": "yellow", "closed": "green"}),
    Column("Failures", lambda circuit: f"{circuit.failures} of {circuit.limit}", drop=3),
    Column("Next try", lambda circuit: circuit.retry_at, drop=1),
    Column("Reset", lambda circuit: circuit.reset, drop=4),
    Column("While open", lambda circuit: circuit.open, drop=2),
)


@click.command()
@with_place
@click.option("--close", "wanted", metavar="TRIGGER", help="Close the circuit of this trigger; what has waited begins.")
@with_server
@with_json
def circuits(wanted: str | None, as_json: bool, **given: Any) -> None:
    """List the circuits of triggers that have one, or close one."""
    client = Reach.told(given, os.environ).client()
    if wanted is not None:
        done = ask(client, close_circuit, CloseCircuit(trigger=wanted))
        if as_json:
            print_json(done.document)
        else:
            click.echo(f"{visible(wanted)}: {'closed' if done.result.was_open else 'was closed already'}")
        return
    found = ask(client, list_circuits, ListCircuits()).result
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(Rows(title="Circuits:", columns=COLUMNS, rows=found.circuits, none="no trigger has a circuit"))
