"""Who is told of each attempt of a binding version: several judges behind the one place that a version has for them."""

from __future__ import annotations

from collections.abc import Callable

from harn.triggers.binding import BindingVersion

Judge = Callable[[BindingVersion], None]


class Judges:
    """Passes each attempt on to every judge."""

    def __init__(self) -> None:
        self.judges: list[Judge] = []

    def __call__(self, binding: BindingVersion) -> None:
        """Tell them all; one may take itself out meanwhile."""
        for judge in tuple(self.judges):
            judge(binding)


def add_judge(binding: BindingVersion, judge: Judge) -> None:
    """Tell ``judge`` of each attempt of this version from now on."""
    if not isinstance(binding.judge, Judges):
        binding.judge = Judges()
    binding.judge.judges.append(judge)


def remove_judge(binding: BindingVersion, judge: Judge) -> None:
    """Tell it no more; a version without judges costs its attempts nothing."""
    judges = binding.judge
    if isinstance(judges, Judges) and judge in judges.judges:
        judges.judges.remove(judge)
        if not judges.judges:
            binding.judge = None
