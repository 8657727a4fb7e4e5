"""
Adopting: the one synchronous step from a candidate to the live generation. It cannot fail.

Nothing here awaits, writes, or calls code that may refuse; a connector that raises when it is told to quiesce is
logged. Before the step nothing live has changed; after it there is nothing left to do that matters to a request.
"""

from __future__ import annotations

from harn.connectors.gate import Sink
from harn.reload.connections import quiesce
from harn.reload.generation import Candidate, Generation
from harn.reload.interfaces import IRouteTable
from harn.triggers.registry import Registry


def adopt(
    candidate: Candidate, live: Generation | None, registry: Registry, table: IRouteTable, sink: Sink, now: float
) -> None:
    """
    Make the candidate's generation the live one.

    :param sink: where the events that connectors start themselves go, through their gates.
    :param now: seconds, Unix.
    """
    generation = candidate.generation
    interpreter = generation.interpreter
    for binding in candidate.reinterpreted:
        previous, binding.interpreter = binding.interpreter, interpreter.retain()
        if previous is not None:
            previous.release()
    serving = generation.connectors
    for shared in candidate.replaced:
        if serving.get(shared.value.trigger_id) is not shared:
            shared.withdraw()  # requests may hold it still, but what has stopped serves no later generation
            quiesce(shared.value)
    for shared in candidate.fresh:
        shared.value.gate.open(sink)
    registry.adopt(generation.bindings, candidate.ended, now, generation.ramps)
    table.swap(generation.tree, generation.number)
    for shared in candidate.replaced:
        shared.release()
    if live is not None:
        live.interpreter.release()
