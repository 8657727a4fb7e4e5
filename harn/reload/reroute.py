"""Rerouting: how one version of a ramp comes to take all deliveries of its trigger, within the same generation."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from harn.reload.candidate import make_route
from harn.reload.drain import Drains
from harn.reload.generation import Generation
from harn.reload.interfaces import IRouteTable
from harn.triggers.binding import BindingVersion
from harn.triggers.ramp import Ramp
from harn.triggers.registry import Registry


def reroute(
    live: Generation,
    ending: Mapping[Ramp, BindingVersion],
    registry: Registry,
    table: IRouteTable,
    drains: Drains,
    now: float,
) -> Generation:
    """
    Let one version of each ramp take all deliveries of its trigger from now on, and the other drain.

    :param ending: ramps of the live generation, and which version of each wins.
    :param now: seconds, Unix.
    :return: the same generation, with some routes changed.
    :raises StageFailed: the tree cannot be built; nothing has changed.
    """
    bindings, routes = live.bindings.copy(), live.routes.copy()
    for winner in ending.values():
        bindings[winner.id] = winner
        route = make_route(winner, live.connectors[winner.id], None)
        if route is not None:
            routes[route.path] = route
    tree = table.build(routes)
    ramps = {trigger_id: ramp for trigger_id, ramp in live.ramps.items() if ramp not in ending}
    # From here on nothing fails, as in `adopt`.
    for winner in ending.values():
        registry.end_ramp(winner.id, winner, bindings, now)
    table.swap(tree, live.number)
    losers = [ramp.stable if winner is ramp.fresh else ramp.fresh for ramp, winner in ending.items()]
    drains.begin(live.number, losers, live.inputs.manifest.orchestrator.reload.drain_timeout)
    return evolve(live, bindings=bindings, routes=routes, tree=tree, ramps=ramps)
