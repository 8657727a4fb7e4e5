"""The triggers that a server has, or the last one had: what to say of a name that is none of them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from harn.cli.client import AdminClient, ask
from harn.cli.output import warn
from harn.cli.place import ServerTarget
from harn.errors import RouteUnknown
from harn.orchestrator.operations import NoParameters, list_bindings
from harn.orchestrator.running import read_state

MOST_NAMED = 10
"""Triggers that one line names."""


def served_triggers(client: AdminClient) -> Sequence[str]:
    """Return the ids of a server's triggers, also of those that only drain, in alphabetical order."""
    return sorted({each.id for each in ask(client, list_bindings, NoParameters()).result.bindings})


def recorded_triggers(state_dir: str) -> Sequence[str]:
    """Return the ids of the triggers in a state file."""
    triggers = (read_state(state_dir) or {}).get("triggers", [])
    return [str(each.get("id")) for each in triggers if isinstance(each, dict)]


def describe_unknown(trigger: str, known: Sequence[str]) -> str:
    """Return that there is no such trigger, with the nearest that there are, or else the first of them."""
    near = get_close_matches(trigger, known, n=3)
    if near:
        return f"there is no trigger {trigger!r}; did you mean {' or '.join(map(repr, near))}?"
    named = ", ".join(known[:MOST_NAMED]) + (", ..." if len(known) > MOST_NAMED else "")
    return f"there is no trigger {trigger!r}; the server has: {named or 'none'}"


def check_trigger(client: AdminClient, trigger: str) -> None:
    """
    Make sure that a server has a trigger.

    :raises RouteUnknown: it has not; says which there are.
    """
    known = served_triggers(client)
    if trigger not in known:
        raise RouteUnknown(describe_unknown(trigger, known))


def note_unknown(target: ServerTarget, trigger: str | None) -> None:
    """
    Print on standard error that a trigger is unknown, if it is: called when a list of its deliveries is empty.

    The command succeeds all the same: deliveries of a trigger that was removed are listed by its id.
    """
    if not trigger:
        return
    client = target.client_if_any()
    known = recorded_triggers(target.location.state_dir) if client is None else served_triggers(client)
    if trigger not in known:
        warn(describe_unknown(trigger, known))
