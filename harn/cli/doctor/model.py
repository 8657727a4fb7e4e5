"""Rows of ``harn doctor``: one finding each, with what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum

from attrs import field, frozen

from harn.operations.model import Result


class CheckStatus(Enum):
    """The result of a check; `SKIP`: it does not apply, or was not wanted."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


NEEDS_ADVICE = frozenset((CheckStatus.WARN, CheckStatus.FAIL))


@frozen
class Row:
    """
    One finding.

    :ivar label: the subject, for example ``lock`` or ``trigger:gh``.
    :ivar hint: what to do; empty only where nothing is to be done.
    """

    status: CheckStatus
    label: str
    detail: str
    hint: str = field(default="")

    @hint.validator
    def _check_hint(self, attribute: object, hint: str) -> None:
        """
        Refuse a finding without advice.

        :raises ValueError: it is a warning or a failure, and does not say what to do.
        """
        if self.status in NEEDS_ADVICE and not hint:
            raise ValueError(f"{self.label}: must say what to do, got nothing")


def ok(label: str, detail: str) -> Row:
    """Return a finding that is in order."""
    return Row(CheckStatus.OK, label, detail)


def warning(label: str, detail: str, hint: str) -> Row:
    """Return a finding that does not prevent serving."""
    return Row(CheckStatus.WARN, label, detail, hint)


def failure(label: str, detail: str, hint: str) -> Row:
    """Return a finding that must be corrected."""
    return Row(CheckStatus.FAIL, label, detail, hint)


def skipped(label: str, detail: str) -> Row:
    """Return a check that was not made, with the reason."""
    return Row(CheckStatus.SKIP, label, detail)


class RowInfo(Result, frozen=True, kw_only=True):
    """A row of ``--json``; ``hint`` is empty where nothing is to be done."""

    status: str
    label: str
    detail: str
    hint: str


class Diagnosis(Result, frozen=True, kw_only=True):
    """
    The document of ``--json``.

    :ivar status: ``ok``, ``warn`` or ``fail``: the worst of all rows.
    :ivar counts: how many, by status.
    """

    status: str
    counts: dict[str, int]
    checks: tuple[RowInfo, ...]


def diagnosis(rows: Sequence[Row]) -> Diagnosis:
    """Return the document of ``--json``."""
    counts = count_by_status(rows)
    worst = "fail" if counts["FAIL"] else "warn" if counts["WARN"] else "ok"
    return Diagnosis(
        status=worst,
        counts=counts,
        checks=tuple(
            RowInfo(status=each.status.value, label=each.label, detail=each.detail, hint=each.hint) for each in rows
        ),
    )


def count_by_status(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many rows have each status, those of no row with 0."""
    found = Counter(each.status for each in rows)
    return {status.value: found[status] for status in CheckStatus}


def format_size(count: float) -> str:
    """Write a number of bytes in a unit that suits it, for example ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def format_age(seconds: float) -> str:
    """Write a time that has passed, or is to come, in one unit, for example ``3 h``."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
