"""
``harn orchestrator history``, ``show``, ``diff``, ``rollback``, ``confirm`` and ``ramp``: the generations that served.

They are listed and compared; a server returns to one, keeps one that is on probation, or ends the ramps of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import click
from msgspec import UNSET, Struct, UnsetType, structs, to_builtins

from harn.cli.client import AdminClient, Answered, ask
from harn.cli.completion import complete_triggers
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.output import Line
from harn.cli.place import ServerTarget, check_trigger, with_server
from harn.cli.reload import DRY_RUN, SOURCE, carry_out, describe_fields, describe_settings
from harn.cli.rows import STATE_STYLES, Column, Rows, draw, format_value, print_found, print_json
from harn.history.operations import (
    DiffGenerations,
    GenerationContent,
    GenerationDiff,
    GenerationInfo,
    ListGenerations,
    ShowGeneration,
    diff_generations,
    list_generations,
    show_generation,
)
from harn.operations.http import write_request
from harn.reload.operations import ShowLive, show_live
from harn.reload.operations import rollback as rollback_operation
from harn.reload.results import GenerationSummary, ProbationInfo, RampInfo
from harn.rollout.operations import RampOf, abort_ramps, confirm_generation, finish_ramps, list_ramps

SIGNS = (("+", "added"), ("~", "modified"), ("-", "removed"))
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "magenta"}


class ListedGeneration(GenerationInfo, frozen=True, kw_only=True):
    """A generation of a list; the one on probation with that."""

    probation: ProbationInfo | UnsetType = UNSET


class History(Struct, frozen=True, kw_only=True):
    """
    The generations that served, the newest first.

    :ivar probation: that of the live one, as the server shows it; None for none.
    """

    generations: tuple[GenerationInfo, ...]
    probation: ProbationInfo | None = None

    def listed(self) -> tuple[ListedGeneration, ...]:
        """Return the document of ``--json``."""
        probation = self.probation
        return tuple(
            ListedGeneration(
                **structs.asdict(each),
                probation=UNSET if probation is None or probation.generation != each.generation else probation,
            )
            for each in self.generations
        )


class GenerationSource(Protocol):
    """Gives generations."""

    def history(self, wanted: ListGenerations) -> History:
        """Return the last ones."""

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """Return one with its content."""

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """Return the differences between two."""


class ServerGenerations(Struct, frozen=True):
    """Generations from a running server."""

    client: AdminClient

    def history(self, wanted: ListGenerations) -> History:
        """See `GenerationSource.history`."""
        listed = ask(self.client, list_generations, wanted)
        live = ask(self.client, show_live, ShowLive())
        return History(generations=listed.result.generations, probation=live.result.probation)

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """See `GenerationSource.show`."""
        return ask(self.client, show_generation, wanted)

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """See `GenerationSource.diff`."""
        return ask(self.client, diff_generations, wanted)


def find_source(target: ServerTarget) -> GenerationSource:
    """Return the server's generations if one runs, else those of its store."""
    client = target.client_if_any()
    if client is not None:
        return ServerGenerations(client)
    from harn.cli.sources import StoredGenerations

    return StoredGenerations(state_dir=target.location.state_dir, manifest=target.location.manifest)


@click.command()
@with_place
@with_parameters(list_generations)
@with_server
@with_json
def history(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """
    List the generations that served, the newest first.

    A note says which is on probation, until when, and which ones were rolled back or reverted.
    """
    found = find_source(target).history(parameters_from(list_generations, given))
    if as_json:
        print_json(to_builtins(found.listed()))
    else:
        draw(history_rows(found))


@click.command()
@with_place
@with_parameters(show_generation, arguments=("generation",))
@with_server
@with_json
def show(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Show the generation numbered GENERATION: its manifest, and the modules of its handlers."""
    found = find_source(target).show(parameters_from(show_generation, given))
    print_found(found, describe, as_json=as_json)


@click.command()
@with_place
@with_parameters(diff_generations, arguments=("old", "new"))
@with_server
@with_json
def diff(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Show the differences from the generation OLD to NEW, by default to the live one (or the last live one)."""
    found = find_source(target).diff(parameters_from(diff_generations, given))
    print_found(found, describe_diff, as_json=as_json)


class HistoryRow(Struct, frozen=True, kw_only=True):
    """A generation as people see it in a list."""

    generation: int
    digest: str
    source: str
    actor: str
    adopted_at: str | None
    live: bool
    recalled: int | None
    reason: str | None
    summary: str
    note: str | UnsetType


def why(row: HistoryRow) -> str:
    """Return which generation one returned to, and why."""
    recalled = "" if row.recalled is None else f"content of {row.recalled}"
    return ": ".join(part for part in (recalled, row.reason) if part)


GENERATION_COLUMNS = (
    Column("", lambda row: "*" if row.live else ""),
    Column("Generation", lambda row: row.generation, style="bold"),
    Column("Adopted at", lambda row: row.adopted_at, drop=2),
    Column("Changes", lambda row: row.summary, drop=1),
    Column("Source", lambda row: row.source, drop=4),
    Column("Actor", lambda row: row.actor, drop=3),
    Column("Why", why, wraps=True),
    Column("Note", lambda row: "" if row.note is UNSET else row.note, wraps=True, style="yellow"),
)


def history_rows(found: History) -> Rows:
    """Return generations as rows for people."""
    listed = found.generations
    pairs = zip(listed, (None, *listed), strict=False)
    rows = [row(each, newer, note_of(each, newer, found.probation)) for each, newer in pairs]
    return Rows(title="Generations:", columns=GENERATION_COLUMNS, rows=rows)


def row(entry: GenerationInfo, newer: GenerationInfo | None, note: str) -> HistoryRow:
    """Return the row of a generation."""
    return HistoryRow(
        generation=entry.generation,
        digest=entry.digest,
        source=entry.source,
        actor=entry.actor,
        adopted_at=entry.adopted_at,
        live=entry.live,
        recalled=entry.recalled,
        reason=entry.reason or None,
        summary=counts(entry.summary),
        note=note or UNSET,
    )


def note_of(entry: GenerationInfo, newer: GenerationInfo | None, probation: ProbationInfo | None) -> str:
    """Return whether a generation is on probation, or was rolled back by the ``newer`` one; empty for neither."""
    if probation is not None and probation.generation == entry.generation:
        if probation.verdict is not UNSET:
            return "being undone"
        return f"on probation until {probation.until if probation.confirm_by is UNSET else probation.confirm_by}"
    recalled = None if newer is None else newer.recalled
    # One that continues with the same content undoes nothing: a restart, or a reload that read the secrets again.
    if newer is None or recalled is None or recalled in (entry.generation, entry.recalled):
        return ""
    return f"{'reverted' if newer.source == 'revert' else 'rolled back'} by generation {newer.generation}"


def counts(summary: GenerationSummary) -> str:
    """Write how many triggers came, changed and went: ``+1 ~2 -0``."""
    known: Mapping[str, Any] = to_builtins(summary)
    numbers: Mapping[str, Any] = known.get("counts") or {name: len(known.get(name) or ()) for _, name in SIGNS}
    return " ".join(f"{sign}{numbers.get(name, 0)}" for sign, name in SIGNS)


def describe(found: GenerationContent) -> Iterator[Line]:
    """Return the lines of one generation: its facts, its modules, and the texts."""
    for name in found.__struct_fields__:
        value = getattr(found, name)
        if name == "summary":
            yield f"{name}: {counts(value)}", ""
        elif name not in ("manifest", "modules"):
            yield f"{name}: {format_value(value if value != '' else None)}", "bold" if name == "generation" else ""
    for module in found.modules:
        yield f"module {module.name}: {module.path} {module.digest}", ""
    yield from text_lines("manifest", found.manifest)
    for module in found.modules:
        if module.source is not UNSET:
            yield from text_lines(module.path, module.source)


def text_lines(name: str, text: str) -> Iterator[Line]:
    """Yield a text line by line, under its name."""
    yield "", ""
    yield f"==> {name} <==", "bold"
    for line in text.removesuffix("\n").split("\n") if text else ():
        yield line, ""


def describe_diff(found: GenerationDiff) -> Iterator[Line]:
    """Return the lines of a difference: the triggers, the settings, then the texts in the form of ``diff -u``."""
    summary = found.summary
    said = f"+{len(summary.added)} ~{len(summary.modified)} -{len(summary.removed)}"
    yield f"generation {found.old} -> {found.new} ({said})", "bold"
    if found.note is not UNSET:
        yield f"  note: {found.note}", "magenta"
    for trigger_id in summary.added:
        yield f"  + {trigger_id}", "green"
    for trigger_id in summary.modified:
        yield f"  ~ {trigger_id}", "yellow"
        change = found.changes.get(trigger_id)
        if change is not None:
            yield from describe_fields(change.fields)
            for path in change.code:
                yield f"      code {path}", ""
    for trigger_id in summary.removed:
        yield f"  - {trigger_id}", "red"
    yield from describe_settings(found.settings)
    yield from diff_lines(found.manifest)
    for file in found.files:
        if file.diff is UNSET or not file.diff:
            yield f"file {file.path}: {file.change}", ""
        else:
            yield from diff_lines(file.diff)


def diff_lines(text: str) -> Iterator[Line]:
    """Yield the lines of a unified diff in their colours."""
    for line in text.removesuffix("\n").split("\n") if text else ():
        style = "bold" if line.startswith(("--- ", "+++ ")) else DIFF_STYLES.get(line[:1], "")
        yield line, style


@click.command()
@with_place
@with_parameters(rollback_operation, arguments=("generation",), without=("source",), helps=DRY_RUN)
@with_server
@with_json
def rollback(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """
    Adopt the content of GENERATION, manifest and code, as a new generation.

    Without GENERATION: the previous one with other content. What is adopted comes from the store; the files stay as
    they are, and a reload adopts them again.
    """
    wanted = parameters_from(rollback_operation, given, source=SOURCE)
    carry_out(target, write_request(rollback_operation, wanted), wanted.dry_run, as_json)


@click.command()
@with_place
@with_parameters(confirm_generation, arguments=("generation",))
@with_server
@with_json
def confirm(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Confirm the generation on probation, so that it is not rolled back automatically. GENERATION: only this one."""
    wanted = parameters_from(confirm_generation, given)
    answered = ask(target.client(), confirm_generation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        click.echo(f"generation {answered.result.generation} confirmed")


RAMP_COLUMNS = (
    Column("Trigger", lambda ramp: ramp.trigger_id),
    Column("State", lambda ramp: ramp.state, styles=STATE_STYLES),
    Column("Fresh", lambda ramp: ramp.fresh),
    Column("Share", lambda ramp: f"{ramp.percent:g} %"),
    Column("Stable", lambda ramp: ramp.stable, drop=3),
    Column("Next step", lambda ramp: ramp.next_step_at, drop=4),
    Column("Attempts", lambda ramp: None if ramp.attempts is UNSET else ramp.attempts, drop=2),
    Column("Failures", lambda ramp: None if ramp.failures is UNSET else ramp.failures, drop=1),
    Column("Why", lambda ramp: ramp.why or None, wraps=True),
)


@click.command()
@with_place
@click.argument("trigger", required=False, shell_complete=complete_triggers)
@click.option("--finish", is_flag=True, help="Give all deliveries to the new version.")
@click.option("--abort", is_flag=True, help="Give all deliveries back to the previous version.")
@with_server
@with_json
def ramp(target: ServerTarget, trigger: str | None, finish: bool, abort: bool, as_json: bool) -> None:
    """List the ramps: triggers with two versions that share its deliveries. Or end the ramp of TRIGGER, or all."""
    if finish and abort:
        raise click.UsageError("--finish and --abort exclude each other")
    client = target.client()
    if finish or abort:
        answered = ask(client, finish_ramps if finish else abort_ramps, RampOf(trigger=trigger))
    else:
        answered = ask(client, list_ramps, RampOf())
    is_shown = [finish or abort or trigger in (None, each.trigger_id) for each in answered.result.ramps]
    if trigger is not None and not any(is_shown):
        check_trigger(client, trigger)
    if as_json:
        listed = answered.document["ramps"]
        print_json([each for each, shown in zip(listed, is_shown, strict=True) if shown])
    else:
        draw(ramp_rows([each for each, shown in zip(answered.result.ramps, is_shown, strict=True) if shown]))


def ramp_rows(ramps: list[RampInfo]) -> Rows:
    """Return ramps as rows for people."""
    return Rows(title="Ramps:", columns=RAMP_COLUMNS, rows=ramps)
