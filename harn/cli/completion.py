"""
The values that a shell completes: triggers, binding versions and generations, from the state file or the manifest.

A shell asks with each press of a key, so that no server is asked, and no connector is loaded. A file that cannot be
read has no values.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from typing import Any

import click

from harn.options import MANIFEST, STATE_DIR, value_of
from harn.store.lock import read_state

MOST = 1000
"""Values that a shell gets at most."""


def complete(name: str, context: click.Context, incomplete: str) -> list[str]:
    """
    Return the values of a parameter that begin with ``incomplete``.

    :param name: of the parameter: ``trigger``, ``binding`` or ``generation``; others have no values.
    """
    try:
        found = list(dict.fromkeys(_values(name, context.params)))
    except (OSError, ValueError):
        return []
    return [value for value in found if value.startswith(incomplete)][:MOST]


def complete_triggers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of triggers that begin with ``incomplete``."""
    return complete("trigger", context, incomplete)


def complete_bindings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the keys of binding versions that begin with ``incomplete``."""
    return complete("binding", context, incomplete)


def _values(name: str, given: dict[str, Any]) -> Iterator[str]:
    place = {key: given.get(key) for key in ("config", "state_dir")}
    state = read_state(value_of(STATE_DIR, place, os.environ)) or {}
    entries = [each for each in state.get("triggers", ()) if isinstance(each, dict) and "id" in each]
    if name == "trigger":
        if entries:
            yield from (str(each["id"]) for each in entries)
        else:
            yield from _written(value_of(MANIFEST, place, os.environ))
    elif name == "binding":
        yield from (f"{each['id']}@v{each.get('version')}" for each in entries)
    elif name == "generation":
        newest = state.get("generation")
        if isinstance(newest, int):
            yield from (str(number) for number in range(newest, max(0, newest - MOST), -1))


def _written(path: str) -> Iterator[str]:
    """Yield the ids that a manifest has."""
    with open(path, "rb") as file:
        document = tomllib.load(file)
    for each in document.get("triggers", ()):
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            yield each["id"]
