"""The highest version number ever given to each trigger, and its definition then. A mirror of the store's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harn.store.model import LiveBinding
from harn.triggers.binding import BindingVersion, Definition


class VersionNumbers:
    """Gives out version numbers that never go back, over any number of restarts."""

    def __init__(self, known: Mapping[str, LiveBinding]) -> None:
        self._known = dict(known)

    def kept(self, definition: Definition) -> int | None:
        """At a start: the number that the trigger had before, if its definition is still the same."""
        known = self._known.get(definition.spec.id)
        return known.version if known is not None and known.fingerprint == definition.fingerprint else None

    def keeps(self, definitions: Iterable[Definition]) -> bool:
        """At a start: tell whether every trigger keeps its number."""
        return all(self.kept(definition) is not None for definition in definitions)

    def following(self, trigger_id: str) -> int:
        """The number that a new definition of the trigger gets."""
        known = self._known.get(trigger_id)
        return 1 if known is None else known.version + 1

    def adopted(self, bindings: Iterable[BindingVersion]) -> None:
        """Note the numbers of bindings that are in force now."""
        for binding in bindings:
            self._known[binding.id] = LiveBinding(
                version=binding.version, fingerprint=binding.definition.fingerprint, bundle_id=binding.bundle_id
            )
