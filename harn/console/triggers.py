"""The pages of triggers: their list, and one with its versions, its source, and what can be done with it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct

from harn.console.desk import Desk, Visit, failed
from harn.console.forms import parameters_in, read_json
from harn.console.overview import Overview, Overviews
from harn.console.sessions import Outcome
from harn.console.sign_in import ROOT
from harn.dispatch.operations import fire, pause_trigger, resume_trigger
from harn.errors import NotPermitted, PayloadInvalid, Refused, RouteUnknown
from harn.history.operations import GenerationContent, ModuleInfo, ShowGeneration, show_generation
from harn.listener.problems import Response
from harn.operations.model import Operation
from harn.rollout.operations import RampOf, list_ramps

TRIGGERS = f"{ROOT}/triggers"
PER_PAGE = 100
_TABLE = re.compile(r"\s*\[\[?\s*(?P<name>[^\]]*?)\s*\]")
_FUNCTION = re.compile(r"""\s*(?:handler|when)\s*=\s*["'](?P<name>[\w.:]+)["']""")


def address_of(trigger_id: str) -> str:
    """Return the page of a trigger."""
    return f"{TRIGGERS}/{quote(trigger_id, safe='')}"


class Lines(Struct, frozen=True, kw_only=True):
    """Some lines of a file; ``first`` is the number of the first."""

    first: int
    text: str


def lines_of_trigger(manifest: str, trigger_id: str) -> Lines | None:
    """
    Return the lines of a manifest that define a trigger: its table, and those below it; None if it is not there.

    Of a large manifest call it off the reactor's thread.
    """
    lines = manifest.split("\n")
    own_id = re.compile(rf"""^[ \t]*id[ \t]*=[ \t]*(["']){re.escape(trigger_id)}\1""", re.MULTILINE)
    for found in own_id.finditer(manifest):
        at = manifest.count("\n", 0, found.start())
        end = at + 1
        while at >= 0 and _table(lines[at]) is None:
            at -= 1
        if at < 0 or _table(lines[at]) != "triggers":
            continue
        while end < len(lines) and (_table(lines[end]) or "triggers.").startswith("triggers."):
            end += 1
        return Lines(first=at + 1, text="\n".join(lines[at:end]).rstrip())
    return None


def _table(line: str) -> str | None:
    """Return the name of the table that a line begins; None for any other line."""
    found = _TABLE.match(line) if line.lstrip().startswith("[") else None
    return None if found is None else found["name"]


class TriggerPages(Struct, frozen=True, kw_only=True):
    """The pages."""

    overviews: Overviews

    async def show_list(self, desk: Desk, visit: Visit) -> Response:
        """Show the triggers whose id or provider has a text in it, by page."""
        sought, is_busy = visit.query.get("q", "").strip(), bool(visit.query.get("busy"))
        overview, page = await self._read_page(desk, visit, sought, is_busy=is_busy)
        found = overview.inspected.counts.matched
        given = {"q": sought, **({"busy": "true"} if is_busy else {})}
        return await desk.show(
            visit,
            "triggers_part.html" if visit.is_part else "triggers.html",
            rows=overview.rows,
            found=found,
            sought=sought,
            is_busy=is_busy,
            page=page,
            pages=pages_of(found),
            here=f"{TRIGGERS}?{urlencode({**given, 'page': page})}",
            link=lambda number: f"{TRIGGERS}?{urlencode({**given, 'page': number})}",
        )

    async def _read_page(self, desk: Desk, visit: Visit, sought: str, *, is_busy: bool) -> tuple[Overview, int]:
        """Return the page of the query, or the last one where there are not so many; and its number."""
        page = max(1, visit.number("page"))
        overview = await self._read_from(desk, visit, page, sought, is_busy=is_busy)
        last = pages_of(overview.inspected.counts.matched)
        if page <= last:
            return overview, page
        return await self._read_from(desk, visit, last, sought, is_busy=is_busy), last

    async def _read_from(self, desk: Desk, visit: Visit, page: int, sought: str, *, is_busy: bool) -> Overview:
        offset = (page - 1) * PER_PAGE
        return await self.overviews.read(
            desk, visit, search=sought or None, busy=is_busy, offset=offset, limit=PER_PAGE
        )

    async def show_one(self, desk: Desk, visit: Visit, trigger_id: str) -> Response:
        """
        Show one trigger.

        :raises RouteUnknown: there is none of this id.
        """
        overview = await self.overviews.read(desk, visit, fresh=visit.is_first_look, trigger=trigger_id)
        if not overview.rows:
            raise RouteUnknown(f"there is no trigger {trigger_id!r}")
        row = overview.rows[0]
        own = (await desk.run(visit, list_ramps, RampOf(trigger=trigger_id))).ramps
        if visit.is_part:
            return await desk.show(visit, "trigger_part.html", row=row, own_ramps=own)
        content = await _content(desk, visit, overview.inspected.snapshot.generation)
        lines = None
        if content is not None:
            lines = await desk.threads.call(lines_of_trigger, content.manifest, trigger_id)
        return await desk.show(
            visit,
            "trigger.html",
            row=row,
            own_ramps=own,
            here=address_of(trigger_id),
            lines=lines,
            modules=[] if content is None or lines is None else modules_of(content, lines),
        )


def pages_of(found: int) -> int:
    """Return how many pages so many triggers take; at least one."""
    return max(1, -(-found // PER_PAGE))


async def _content(desk: Desk, visit: Visit, generation: int | None) -> GenerationContent | None:
    """Return the content of the live generation, where it is kept."""
    try:
        wanted = ShowGeneration(generation=generation or 1, sources=True)
        found: GenerationContent = await desk.run(visit, show_generation, wanted)
    except Refused:
        return None
    return found


def modules_of(content: GenerationContent, lines: Lines) -> list[ModuleInfo]:
    """Return the modules that the handler and the predicate of a trigger lie in."""
    names = set()
    for line in lines.text.splitlines():
        found = _FUNCTION.match(line)
        if found is not None:
            written = found["name"]
            names.add(re.split("::?", written)[0] if ":" in written else written.rpartition(".")[0] or "lib")
    return [module for module in content.modules if module.name in names]


async def pause(desk: Desk, visit: Visit, trigger_id: str) -> Response:
    """Pause a trigger."""
    said = "Paused: events are accepted and kept, and none begins."
    return await _act(desk, visit, trigger_id, pause_trigger, said)


async def resume(desk: Desk, visit: Visit, trigger_id: str) -> Response:
    """Resume a trigger."""
    return await _act(desk, visit, trigger_id, resume_trigger, "Resumed.")


async def _act(desk: Desk, visit: Visit, trigger_id: str, operation: Operation[Any, Any, Any], said: str) -> Response:
    try:
        wanted = parameters_in(operation, {**visit.form, "trigger": trigger_id})
    except PayloadInvalid as error:
        return desk.done(visit, address_of(trigger_id), failed(error))
    return await desk.act(visit, address_of(trigger_id), operation, wanted, said)


async def fire_one(desk: Desk, visit: Visit, trigger_id: str) -> Response:
    """Send a synthetic event to a trigger; with the payload of the form, if there is one."""
    fields: dict[str, Any] = {"trigger": trigger_id, "kind": visit.form.get("kind", "").strip()}
    try:
        payload = visit.form.get("payload", "").strip()
        if payload:
            fields["payload"] = read_json(payload, "payload")
            wanted = fire.parameters(
                trigger=trigger_id, payload=fields["payload"], kind=parameters_in(fire, {**fields, "payload": ""}).kind
            )
        else:
            wanted = parameters_in(fire, fields)
        result = await desk.run(visit, fire, wanted)
    except NotPermitted:
        raise
    except Refused as error:
        return desk.done(visit, address_of(trigger_id), failed(error))
    text = f"Fired: {result.status}"
    return desk.done(visit, address_of(trigger_id), Outcome(text=text, is_bad=result.status == "dlq", result=result))
