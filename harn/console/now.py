"""The first page: rates, percentiles, what runs and waits, and what holds deliveries up."""

from __future__ import annotations

from msgspec import Struct

from harn.circuits.operations import CloseCircuit, ListCircuits, close_circuit, list_circuits
from harn.console import plots
from harn.console.desk import Desk, Visit
from harn.console.forms import parameters_in
from harn.console.overview import Overviews
from harn.console.sessions import Outcome
from harn.console.sign_in import ROOT
from harn.console.traffic import Traffic
from harn.dispatch.operations import ListPauses, ResumeServer, list_pauses, pause_server, resume_server
from harn.errors import PayloadInvalid
from harn.listener.problems import Response
from harn.reload.operations import ListDrains, cancel_drain, list_drains, move_drain
from harn.server import Readiness

MOST_BUSY = 20
MOST_HELD = 50
"""Pauses, circuits and draining versions that are listed, of each so many."""
NOW = f"{ROOT}/"


class NowPage(Struct, frozen=True, kw_only=True):
    """
    The page.

    :ivar readiness: what ``/readyz`` says to anyone.
    """

    traffic: Traffic
    overviews: Overviews
    readiness: Readiness

    async def show(self, desk: Desk, visit: Visit) -> Response:
        """Show the current activity."""
        overview = await self.overviews.read(desk, visit, fresh=visit.is_first_look, busy=True, limit=MOST_BUSY)
        rates, counts = self.traffic.rates(), overview.inspected.counts
        return await desk.show(
            visit,
            "now_part.html" if visit.is_part else "now.html",
            overview=overview,
            rates=rates,
            plot=plots.draw({"accepted": rates.accepted, "done": rates.done, "failed": rates.failed}),
            counts=counts,
            more_busy=counts.matched - len(overview.rows),
            paused=await desk.run(visit, list_pauses, ListPauses(limit=MOST_HELD)),
            circuits=(await desk.run(visit, list_circuits, ListCircuits(open=True))).circuits,
            drains=await desk.run(visit, list_drains, ListDrains(limit=MOST_HELD)),
            most=MOST_HELD,
            not_ready=self.readiness.reasons(),
        )


async def pause(desk: Desk, visit: Visit) -> Response:
    """Pause the whole server."""
    try:
        wanted = parameters_in(pause_server, visit.form)
    except PayloadInvalid as error:
        return desk.done(visit, NOW, Outcome(text=str(error), is_bad=True))
    return await desk.act(visit, NOW, pause_server, wanted, "Paused: events are accepted and kept, and none begins.")


async def resume(desk: Desk, visit: Visit) -> Response:
    """Resume the whole server."""
    return await desk.act(visit, NOW, resume_server, ResumeServer(), "Resumed.")


async def close(desk: Desk, visit: Visit) -> Response:
    """Close the circuit of a trigger."""
    wanted = CloseCircuit(trigger=visit.form.get("trigger", ""))
    return await desk.act(visit, NOW, close_circuit, wanted, "The circuit of {0.trigger_id} is closed.")


async def move(desk: Desk, visit: Visit) -> Response:
    """Move the deliveries of a draining version to the newest one."""
    wanted = parameters_in(move_drain, visit.form)
    return await desk.act(visit, NOW, move_drain, wanted, "{0.moved} deliveries of {0.binding} were moved.")


async def cancel(desk: Desk, visit: Visit) -> Response:
    """Dead-letter the deliveries of a draining version."""
    wanted = parameters_in(cancel_drain, visit.form)
    return await desk.act(visit, NOW, cancel_drain, wanted, "{0.cancelled} deliveries of {0.binding} were given up.")
