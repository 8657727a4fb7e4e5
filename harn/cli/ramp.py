"""``harn orchestrator ramp``: which triggers give their new version a share only; end that, one way or the other."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from harn.cli.client import AdminClient
from harn.cli.inspect import section
from harn.cli.place import Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.errors import RouteUnknown

MOST_NAMED = 10
"""Triggers that one line names."""


@click.command()
@with_place
@click.argument("trigger", required=False)
@click.option("--finish", is_flag=True, help="Give all deliveries to the new version.")
@click.option("--abort", is_flag=True, help="Give all deliveries back to the version before.")
@with_server
@with_json
def ramp(trigger: str | None, finish: bool, abort: bool, as_json: bool, **given: Any) -> None:
    """List the triggers whose versions share their deliveries, or end that for TRIGGER, or for all of them."""
    if finish and abort:
        raise click.UsageError("--finish and --abort exclude each other")
    client = Reach.told(given, os.environ).client()
    if finish or abort:
        asked = {} if trigger is None else {"trigger": trigger}
        found = client.post(f"/admin/ramps/{'finish' if finish else 'abort'}", asked).expect_list("ramps")
    else:
        listed = client.get("/admin/ramps").expect_list("ramps")
        found = [each for each in listed if trigger is None or each.get("trigger_id") == trigger]
        if trigger is not None and not found:
            check_trigger(client, trigger)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif sys.stdout.isatty():
        from harn.cli.terminal import print_ramps

        print_ramps(found)
    else:
        for line in section("Ramps:", found):
            click.echo(line)


def check_trigger(client: AdminClient, trigger: str) -> None:
    """
    Make sure that there is such a trigger.

    :raises RouteUnknown: there is none; says which there are.
    """
    known = sorted({each["id"] for each in client.get("/admin/bindings").expect_list("bindings")})
    if trigger in known:
        return
    named = ", ".join(known[:MOST_NAMED]) + (", ..." if len(known) > MOST_NAMED else "")
    raise RouteUnknown(f"there is no trigger {trigger!r}; the server has: {named or 'none'}")
