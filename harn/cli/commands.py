"""
The commands: where each is, its section in the help, and its summary there, so that a list of them imports none.

Those of ``harn orchestrator`` are commands of ``harn`` as well: ``harn serve`` is ``harn orchestrator serve``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SERVE, CHANGE, LOOK, REPAIR, MORE = "Serve", "Change", "Look", "Repair", "More"
SECTIONS = (SERVE, CHANGE, LOOK, REPAIR, MORE)
"""In the order of the help."""
LONGEST = 49
"""Characters of the longest summary."""


class CommandEntry(NamedTuple):  # attrs would take longer to import than all that `harn --version` needs
    """
    A command's place.

    :ivar target: the ``module:attribute`` that holds it.
    :ivar section: of `SECTIONS`.
    :ivar summary: at most `LONGEST` characters; empty only for a group of one section.
    """

    target: str
    section: str
    summary: str


ORCHESTRATOR: Mapping[str, CommandEntry] = {
    "serve": CommandEntry("harn.cli.serve:serve", SERVE, "Run a server until SIGTERM or Ctrl-C"),
    "check": CommandEntry("harn.cli.maintenance:check", SERVE, "Check manifest, secrets and code; for CI"),
    "doctor": CommandEntry("harn.cli.doctor.command:doctor", SERVE, "Check everything here, say what to do"),
    "fire": CommandEntry("harn.cli.fixtures:fire", SERVE, "Send a synthetic event, show the outcome"),
    "reload": CommandEntry("harn.cli.reload:reload", CHANGE, "Adopt the manifest and code as they are now"),
    "plan": CommandEntry("harn.cli.reload:plan", CHANGE, "Show what a reload would change"),
    "rollback": CommandEntry("harn.cli.generations:rollback", CHANGE, "Go back to an earlier generation"),
    "confirm": CommandEntry("harn.cli.generations:confirm", CHANGE, "Keep a generation that is on probation"),
    "ramp": CommandEntry("harn.cli.generations:ramp", CHANGE, "List, finish or abort gradual changes"),
    "drains": CommandEntry("harn.cli.unfinished:drains", CHANGE, "List old versions that still run; end them"),
    "pause": CommandEntry("harn.cli.holds:pause", CHANGE, "Keep what arrives, begin none of it"),
    "resume": CommandEntry("harn.cli.holds:resume", CHANGE, "Begin deliveries again after a pause"),
    "pauses": CommandEntry("harn.cli.holds:pauses", CHANGE, "List what is paused, and until when"),
    "inspect": CommandEntry("harn.cli.inspect:inspect", LOOK, "Show the server and its triggers"),
    "servers": CommandEntry("harn.cli.servers:servers", LOOK, "List the servers that share the store"),
    "top": CommandEntry("harn.cli.stats:top", LOOK, "Show rates and backlogs, live"),
    "stats": CommandEntry("harn.cli.stats:stats", LOOK, "Show rates and percentiles of a day"),
    "deliveries": CommandEntry("harn.cli.deliveries:deliveries", LOOK, "List deliveries, newest first"),
    "delivery": CommandEntry("harn.cli.deliveries:delivery", LOOK, "Show one delivery with all its attempts"),
    "events": CommandEntry("harn.cli.events:events", LOOK, "Print or follow the records of a topic"),
    "history": CommandEntry("harn.cli.generations:history", LOOK, "List the generations that served"),
    "show": CommandEntry("harn.cli.generations:show", LOOK, "Show manifest and code of a generation"),
    "diff": CommandEntry("harn.cli.generations:diff", LOOK, "Show what differs between two generations"),
    "schedule": CommandEntry("harn.cli.schedule:schedule", LOOK, "List what schedules fire next"),
    "alerts": CommandEntry("harn.cli.inspect:alerts", LOOK, "List alerts and what was sent; test one"),
    "dlq": CommandEntry("harn.cli.deliveries:dlq", REPAIR, "Group or list dead letters"),
    "replay": CommandEntry("harn.cli.changes:replay", REPAIR, "Run recorded events again"),
    "cancel": CommandEntry("harn.cli.changes:cancel", REPAIR, "End deliveries that wait or run"),
    "discard": CommandEntry("harn.cli.changes:discard", REPAIR, "Give up dead letters"),
    "jobs": CommandEntry("harn.cli.jobs:jobs", REPAIR, "List and steer bulk replays"),
    "export": CommandEntry("harn.cli.fixtures:export", REPAIR, "Write an event as a fixture, for tests"),
    "import": CommandEntry("harn.cli.fixtures:import_", REPAIR, "Send a fixture as a new delivery"),
    "cursor": CommandEntry("harn.cli.schedule:cursor", REPAIR, "Show or set where a poll continues from"),
    "circuits": CommandEntry("harn.cli.holds:circuits", REPAIR, "List circuits; close an open one"),
    "recover": CommandEntry("harn.cli.unfinished:recover", REPAIR, "Recover deliveries of an earlier server"),
    "keys": CommandEntry("harn.cli.keys:keys", REPAIR, "Make, list, revoke keys of the admin API"),
    "backup": CommandEntry("harn.cli.maintenance:backup", REPAIR, "Write a backup of a running server"),
    "restore": CommandEntry("harn.cli.maintenance:restore", REPAIR, "Make a state directory of a backup"),
    "store": CommandEntry("harn.cli.store:store", REPAIR, "Migrate, show or copy the store"),
    "compact": CommandEntry("harn.cli.maintenance:compact", REPAIR, "Make the event log's file smaller"),
}
"""Commands that run the orchestrator, or talk to one that runs."""

HARN: Mapping[str, CommandEntry] = {
    "init": CommandEntry("harn.cli.init:init", SERVE, "Write the files of a first trigger"),
    "dev": CommandEntry("harn.cli.dev:dev", SERVE, "Serve while you write: reload at each save"),
    "send": CommandEntry("harn.cli.send:send", SERVE, "Post a signed request, as the sender would"),
    **ORCHESTRATOR,
    "orchestrator": CommandEntry("harn.cli.main:orchestrator", MORE, "All of the above, by their long names"),
    "mcp": CommandEntry("harn.cli.mcp.command:mcp", MORE, "Let agents operate a server, as MCP tools"),
    "manifest": CommandEntry("harn.cli.main:manifest", MORE, "Print the JSON schema, for editors"),
    "connector": CommandEntry("harn.cli.connector:connector", MORE, "Check a package of connectors"),
}
"""The commands of ``harn``."""
