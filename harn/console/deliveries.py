"""The pages of deliveries: a search, and one delivery with all that happened to it and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET, Struct

from harn.console.answers import download, see_other
from harn.console.desk import Desk, Visit
from harn.console.forms import one_literal, parameters_in
from harn.console.sign_in import ROOT
from harn.deliveries.change_operations import ChangeOne, cancel_one, discard_one, replay_one
from harn.deliveries.describing import AttemptInfo, DeliveryDetail, DeliveryList, TimelineEntry
from harn.deliveries.operations import ListDeliveries, ShowDelivery, export_fixture, list_deliveries, show_delivery
from harn.deliveries.selection import ALLOWED
from harn.errors import DeliveryUnknown, PayloadInvalid
from harn.listener.problems import Response
from harn.model.delivery import UNFINISHED, State
from harn.store.jobs import CANCEL, DISCARD, REPLAY

DELIVERIES = f"{ROOT}/deliveries"
PER_PAGE = 50
FILTERS = ("id", "trigger", "kind", "state", "since", "where")
"""The fields of the search."""
SINCE = ("15m", "1h", "6h", "24h", "7d", "30d")
"""Ages that the search offers."""
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")


def address_of(event_id: str) -> str:
    """Return the page of a delivery."""
    return f"{DELIVERIES}/{quote(event_id, safe='')}"


# The search


async def show_list(desk: Desk, visit: Visit) -> Response:
    """Show the deliveries that the query's fields select, the newest first."""
    chosen = {name: visit.query.get(name, "").strip() for name in FILTERS}
    found: DeliveryList | None = None
    why = ""
    try:
        if chosen["id"] and await _is_kept(desk, visit, chosen["id"]):
            return see_other(address_of(chosen["id"]))
        found = await desk.run(visit, list_deliveries, selection(chosen, visit.query.get("before", "")))
    except (PayloadInvalid, DeliveryUnknown) as error:
        why = str(error)
    given = {name: value for name, value in chosen.items() if value}
    return await desk.show(
        visit,
        "deliveries_part.html" if visit.is_part else "deliveries.html",
        status=400 if found is None else 200,
        found=found,
        why=why,
        chosen=chosen,
        is_filtered=bool(given),
        is_first="before" not in visit.query,
        here=f"{DELIVERIES}?{urlencode(given)}",
        states=[state.value for state in State],
        ages=SINCE,
        next_page=next_page(given, found),
    )


async def _is_kept(desk: Desk, visit: Visit, event_id: str) -> bool:
    """Return whether a text is the event id of a delivery that is kept."""
    try:
        await desk.run(visit, show_delivery, ShowDelivery(event_id=event_id))
    except DeliveryUnknown:
        return False
    return True


def selection(chosen: Mapping[str, str], before: str) -> ListDeliveries:
    """
    Return the parameters of the list; an id is looked for as that of an event, and as its sender's.

    :raises PayloadInvalid: a field is wrong; says what it must be.
    """
    conditions = [f"({chosen['where']})"] if chosen["where"] else []
    if chosen["where"]:
        parameters_in(list_deliveries, {"where": chosen["where"]})  # so that an error quotes what the user wrote
    if chosen["id"]:
        literal = one_literal(chosen["id"])
        conditions.append(f"(event.id == {literal} || event.dedupe_key == {literal})")
    fields = {name: chosen[name] for name in ("trigger", "kind", "state", "since")}
    where = {"where": " && ".join(conditions)}
    return parameters_in(list_deliveries, {**fields, **where, "before": before, "limit": PER_PAGE})


def next_page(given: Mapping[str, str], found: DeliveryList | None) -> str:
    """Return where the list continues; empty at its end."""
    if found is None or not found.more or found.before is UNSET:
        return ""
    return f"{DELIVERIES}?{urlencode({**given, 'before': found.before})}"


# One delivery


class Step(Struct, frozen=True, kw_only=True):
    """
    One line of the timeline.

    :ivar attempt: what is kept of an attempt; None for any other step.
    :ivar after: seconds since the delivery was received; None where no time is known.
    """

    entry: TimelineEntry
    after: float | None
    attempt: AttemptInfo | None


def steps_of(shown: DeliveryDetail) -> list[Step]:
    """Return the timeline with the attempts that it names."""
    attempts = {each.number: each for each in shown.attempts}
    began = _unix(shown.received_at)
    return [
        Step(
            entry=entry,
            after=None if entry.at is None else max(0.0, _unix(entry.at) - began),
            attempt=attempts.get(entry.number) if entry.what == "attempt" and entry.number is not UNSET else None,
        )
        for entry in shown.timeline
    ]


def _unix(text: str) -> float:
    """Return the seconds (Unix) of a time of a result."""
    return datetime.fromisoformat(text).timestamp()


async def show_one(desk: Desk, visit: Visit, event_id: str) -> Response:
    """Show one delivery."""
    shown = await desk.run(visit, show_delivery, ShowDelivery(event_id=event_id))
    state, payload = State(shown.state), payload_of(shown)
    return await desk.show(
        visit,
        "delivery_part.html" if visit.is_part else "delivery.html",
        shown=shown,
        steps=steps_of(shown),
        payload=payload,
        binary=size_of_binary(payload),
        here=address_of(event_id),
        is_unfinished=state in UNFINISHED,
        can={operation: state in ALLOWED[operation] for operation in (REPLAY, CANCEL, DISCARD)},
    )


def payload_of(shown: DeliveryDetail) -> object:
    """Return the body of the event as it is shown: without secrets."""
    payload = shown.event.get("provider_payload")
    return payload.get("raw") if isinstance(payload, dict) else None


def size_of_binary(payload: object) -> int | None:
    """Return how many bytes a body has that is not text, of which only its base64 is shown; None for any other body."""
    if not isinstance(payload, dict) or payload.keys() != {"raw_base64", "raw_utf8"} or payload["raw_utf8"] is not None:
        return None
    encoded = payload["raw_base64"]
    if not isinstance(encoded, str):
        return None
    return len(encoded) // 4 * 3 - encoded[-2:].count("=")


async def export(desk: Desk, visit: Visit, event_id: str) -> Response:
    """Send the event of a delivery as a fixture, to be saved as a file."""
    found = await desk.run(visit, export_fixture, ShowDelivery(event_id=event_id))
    body = msgspec.json.format(msgspec.json.encode(found.fixture), indent=2)
    return download(body + b"\n", f"{_UNFIT.sub('_', event_id)[:100]}.json")


async def replay(desk: Desk, visit: Visit, event_id: str) -> Response:
    """Replay a delivery, and go to its page, which links the new one."""
    said = "Replayed as {0.items[0].replayed_as}."
    return await desk.act(visit, address_of(event_id), replay_one, ChangeOne(event_id=event_id), said)


async def cancel(desk: Desk, visit: Visit, event_id: str) -> Response:
    """Cancel a delivery."""
    return await desk.act(visit, address_of(event_id), cancel_one, ChangeOne(event_id=event_id), "Cancelled.")


async def discard(desk: Desk, visit: Visit, event_id: str) -> Response:
    """Discard a dead letter."""
    return await desk.act(visit, address_of(event_id), discard_one, ChangeOne(event_id=event_id), "Discarded.")
