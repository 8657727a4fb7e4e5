"""The progress of a job: a bar at a terminal, elsewhere a line whenever it has come further. On standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from harn.cli.output import warn
from harn.deliveries.job_operations import JobInfo
from harn.deliveries.selection import PAST


class Progress:
    """
    Shows how far one job has come; a context manager.

    :param is_shown: False to show nothing.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: Any = None
        self._task: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        if self._is_shown and sys.stderr.isatty():
            from harn.cli.terminal import progress_bar

            self._bar = progress_bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: JobInfo) -> None:
        """Show a job as it stands now."""
        if not self._is_shown:
            return
        line = describe(job)
        if self._bar is None:
            if line != self._last:
                warn(line)
            self._last = line
            return
        total = job.matched if job.is_selected else None
        if self._task is None:
            self._task = self._bar.add_task(line, total=total)
        self._bar.update(self._task, description=line, total=total, completed=job.done + job.skipped)


def describe(job: JobInfo) -> str:
    """Return in one line how far a job has come."""
    more = "" if job.is_selected else " so far"
    return f"job {job.job} {job.state}: {job.done} of {job.matched}{more} {PAST[job.operation]}, {job.skipped} skipped"
