"""``harn orchestrator history``, ``show`` and ``diff``: the generations that served, and what differs between them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from harn.cli.arguments import GENERATION, WholeNumber
from harn.cli.fire import written
from harn.cli.generations import find_source
from harn.cli.inspect import section
from harn.cli.output import Line, say
from harn.cli.place import Reach
from harn.cli.plans import describe_fields, describe_settings
from harn.cli.shared import with_json, with_place, with_server

SIGNS = (("+", "added"), ("~", "modified"), ("-", "removed"))
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "magenta"}


@click.command()
@with_place
@click.option(
    "--limit", type=WholeNumber(1, 1000), default=20, show_default=True, metavar="N", help="At most N generations."
)
@with_server
@with_json
def history(limit: int, as_json: bool, **given: Any) -> None:
    """
    List the generations that served, the newest first.

    A note says which is on probation, until when, and which ones were rolled back or reverted.
    """
    entries = find_source(Reach.told(given, os.environ)).history(limit)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    rows = [row(entry, newer) for entry, newer in zip(entries, (None, *entries), strict=False)]
    if sys.stdout.isatty():
        from harn.cli.terminal import print_history

        print_history(rows)
        return
    for line in section("Generations:", rows):
        click.echo(line)


@click.command()
@with_place
@click.argument("generation", type=GENERATION)
@click.option("--sources", is_flag=True, help="The text of its modules, too.")
@with_server
@with_json
def show(generation: int, sources: bool, as_json: bool, **given: Any) -> None:
    """Show the generation numbered GENERATION: its manifest, and the modules of its handlers."""
    found = find_source(Reach.told(given, os.environ)).show(generation, sources)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        say(describe(found))


@click.command()
@with_place
@click.argument("old", type=GENERATION)
@click.argument("new", type=GENERATION, required=False)
@with_server
@with_json
def diff(old: int, new: int | None, as_json: bool, **given: Any) -> None:
    """Show what differs from the generation OLD to NEW, by default to the one that serves (or served last)."""
    found = find_source(Reach.told(given, os.environ)).diff(old, new)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        say(describe_diff(found))


def row(entry: Mapping[str, Any], newer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Make a row for people of a generation and the one that came after it."""
    shown = {name: value for name, value in entry.items() if name != "probation"}
    note = note_of(entry, newer)
    return {
        **shown,
        "reason": entry.get("reason") or None,
        "summary": counts(entry.get("summary") or {}),
        **({"note": note} if note else {}),
    }


def note_of(entry: Mapping[str, Any], newer: Mapping[str, Any] | None) -> str:
    """Say how a generation stands: whether it is on probation, or was undone; empty when there is nothing to say."""
    probation = entry.get("probation")
    if probation is not None:
        if probation.get("verdict"):
            return "being undone"
        return f"on probation until {probation.get('confirm_by') or probation.get('until')}"
    recalled = None if newer is None else newer.get("recalled")
    # One that goes on with the same content undoes nothing: a restart, or a reload that read the secrets anew.
    if newer is None or recalled is None or recalled in (entry.get("generation"), entry.get("recalled")):
        return ""
    return f"{'reverted' if newer.get('source') == 'revert' else 'rolled back'} by generation {newer['generation']}"


def counts(summary: Mapping[str, Any]) -> str:
    """Write how many triggers came, changed and went: ``+1 ~2 -0``."""
    numbers: Mapping[str, Any] = summary.get("counts") or {name: len(summary.get(name) or ()) for _, name in SIGNS}
    return " ".join(f"{sign}{numbers.get(name, 0)}" for sign, name in SIGNS)


def describe(found: Mapping[str, Any]) -> Iterator[Line]:
    """Give the lines of one generation: its facts, its modules, and the texts."""
    for name, value in found.items():
        if name == "summary":
            yield f"{name}: {counts(value or {})}", ""
        elif name not in ("manifest", "modules"):
            yield f"{name}: {written(value if value != '' else None)}", "bold" if name == "generation" else ""
    modules: Sequence[Mapping[str, Any]] = found.get("modules", ())
    for module in modules:
        yield f"module {module.get('name')}: {module.get('path')} {module.get('digest')}", ""
    yield from text_lines("manifest", found.get("manifest", ""))
    for module in modules:
        if "source" in module:
            yield from text_lines(str(module.get("path")), module["source"])


def text_lines(name: str, text: str) -> Iterator[Line]:
    """Give a text line by line, under its name."""
    yield "", ""
    yield f"==> {name} <==", "bold"
    for line in text.removesuffix("\n").split("\n") if text else ():
        yield line, ""


def describe_diff(found: Mapping[str, Any]) -> Iterator[Line]:
    """Give the lines of a difference: the triggers, the settings, then the texts as ``diff -u`` has them."""
    summary = found["summary"]
    yield f"generation {found['from']} -> {found['to']} ({counts(summary)})", "bold"
    if found.get("note"):
        yield f"  note: {found['note']}", "magenta"
    for trigger_id in summary["added"]:
        yield f"  + {trigger_id}", "green"
    changes: Mapping[str, Mapping[str, Any]] = found.get("changes", {})
    for trigger_id in summary["modified"]:
        yield f"  ~ {trigger_id}", "yellow"
        yield from describe_fields(changes.get(trigger_id, {}).get("fields", ()))
        for path in changes.get(trigger_id, {}).get("code", ()):
            yield f"      code {path}", ""
    for trigger_id in summary["removed"]:
        yield f"  - {trigger_id}", "red"
    yield from describe_settings(found.get("settings", ()))
    yield from diff_lines(found.get("manifest") or "")
    for file in found.get("files", ()):
        if not file.get("diff"):
            yield f"file {file.get('path')}: {file.get('change')}", ""
        yield from diff_lines(file.get("diff") or "")


def diff_lines(text: str) -> Iterator[Line]:
    """Give the lines of a unified diff in their colours."""
    for line in text.removesuffix("\n").split("\n") if text else ():
        style = "bold" if line.startswith(("--- ", "+++ ")) else DIFF_STYLES.get(line[:1], "")
        yield line, style
