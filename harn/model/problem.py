"""A problem of a manifest, or of something that it names, with its place and what to do."""

from __future__ import annotations

from msgspec import Struct


class Problem(Struct, frozen=True, kw_only=True):
    """
    A problem, as printed for a person and as a report carries it.

    :ivar file: the file's name as the user gave it.
    :ivar line: 1-based, or None when the problem has no line.
    :ivar where: for example ``triggers[0] (gh): retry.max``; may be empty.
    :ivar message: what is wrong.
    :ivar hint: what to do; may be empty.
    :ivar code: ``file:line`` or ``file:line:column`` of the user's code that it is about; may be empty.
    """

    file: str
    line: int | None = None
    where: str = ""
    message: str
    hint: str = ""
    code: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [part for part in (place, self.where) if part]
        said = self.message if not self.hint else f"{self.message}; {self.hint}"
        return ": ".join([*parts, said])
