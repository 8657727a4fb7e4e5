"""Manifests of which a part is wrong: what can be used of them is looked at further, so that no problem waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harn.errors import ManifestInvalid
from harn.manifest.diagnostics import Diagnostic
from harn.manifest.model import TriggerSpec
from harn.model.problem import Problem

if TYPE_CHECKING:
    from harn.manifest.load import LoadedManifest


class PartlyInvalid(ManifestInvalid):
    """
    Some triggers of a manifest cannot be used.

    :ivar usable: the manifest without them. It is not to be served: problems of what its triggers name are added to
        these.
    """

    def __init__(self, problems: Sequence[Problem], usable: LoadedManifest) -> None:
        super().__init__(problems)
        self.usable = usable

    def with_problems(self, others: Iterable[Problem]) -> ManifestInvalid:
        """Return the error with further problems, of what the usable triggers name."""
        return ManifestInvalid([*self.problems, *others], self.stage)


def usable_triggers(specs: Sequence[TriggerSpec | None], found: Iterable[Diagnostic]) -> list[TriggerSpec]:
    """
    Return the triggers without a problem of their own; none where the rest of the manifest has one, which may be the
    reason for what is wrong with what they name.

    :param specs: by index.
    :param found: all problems.
    """
    wrong: set[int] = set()
    for each in found:
        index = each.path[1] if each.path[:1] == ("triggers",) and len(each.path) > 1 else None
        if not isinstance(index, int):
            return []
        wrong.add(index)
    return [spec for index, spec in enumerate(specs) if spec is not None and index not in wrong]
