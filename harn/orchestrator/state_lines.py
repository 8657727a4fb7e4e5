"""
The text of the state file, of which only what has changed is made again: the entry of a trigger that nothing has
happened to since the last time is the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harn.observability.counts import NO_COUNTS
from harn.orchestrator.status import ServerFacts, ServerState, encode_state, entry_of, head_of, share_on_ramp
from harn.store.holds import ALL
from harn.triggers.binding import BindingVersion

_encode = msgspec.json.Encoder().encode

Seen = tuple[object, ...]
"""All that an entry was made from, beside the version itself."""


class StateLines:
    """The entries as they were written last, with the values that each was made from. Used by one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Seen, bytes]] = {}  # by the version's key

    def encode(self, facts: ServerFacts, state: ServerState) -> bytes:
        """Return the text of the state file."""
        bindings = list(state.bindings)
        return encode_state(head_of(facts, state, bindings), self._lines(state, bindings))

    def _lines(self, state: ServerState, bindings: list[BindingVersion]) -> Iterator[bytes]:
        before, kept = self._kept, {}
        is_all_paused, busy = ALL in state.paused, _busy(state)
        counts, circuit, has_totals = state.counts, state.circuits.get, state.figures.totals.has
        for binding in bindings:
            key, trigger_id = binding.key, binding.id
            paused = is_all_paused or trigger_id in state.paused
            is_idle = not binding.in_flight and key not in counts and trigger_id not in busy
            if is_idle and not has_totals(trigger_id):
                seen: Seen = (binding.state, paused, circuit(trigger_id))
            else:
                seen = _seen(state, binding, paused)
            line = before.get(key)
            if line is None or line[0] != seen:
                line = seen, _encode(entry_of(state, binding, paused))
            kept[key] = line
            yield line[1]
        self._kept = kept


def _busy(state: ServerState) -> set[str]:
    """Return the triggers of which something runs, waits or died, or that are on a ramp."""
    figures = state.figures
    return {*figures.running, *figures.waiting, *figures.dead, *figures.backlogs, *state.ramps}


def _seen(state: ServerState, binding: BindingVersion, paused: bool) -> Seen:
    figures, trigger_id = state.figures, binding.id
    counts = state.counts.get(binding.key, NO_COUNTS)
    backlog = figures.backlogs.get(trigger_id)
    return (
        binding.state,
        paused,
        state.circuits.get(trigger_id),
        binding.in_flight,
        counts.received,
        counts.dispatched,
        counts.failed,
        counts.dead,
        figures.totals.of(trigger_id),
        figures.running.get(trigger_id),
        figures.waiting.get(trigger_id),
        figures.dead.get(trigger_id),
        None if backlog is None else backlog.next_due,
        share_on_ramp(binding, state.ramps),
    )
