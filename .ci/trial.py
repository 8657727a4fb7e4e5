"""
Run trial, and say at its end which tests took longest.

Takes trial's arguments, `--jobs` among them. A test's time is what passed between its being handed to a worker process
and its result: trial's own reporters see a test of a worker only when it has ended.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.scripts import trial
from twisted.trial._dist.distreporter import DistReporter
from twisted.trial._dist.disttrial import DistTrialRunner

SHOWN = 20


class TimingReporter(DistReporter):
    """Pass on each test's result when it has ended, and print the slowest tests after the summary."""

    def __init__(self, original: Any) -> None:
        super().__init__(original)  # type: ignore[no-untyped-call]
        self.began: dict[str, float] = {}
        self.took: dict[str, float] = {}

    def startTest(self, test: Any) -> None:  # noqa: N802
        """Note when a test begins."""
        self.began[test.id()] = time.monotonic()
        super().startTest(test)  # type: ignore[no-untyped-call]

    def stopTest(self, test: Any) -> None:  # noqa: N802
        """Note how long it took."""
        self.took[test.id()] = time.monotonic() - self.began[test.id()]
        super().stopTest(test)  # type: ignore[no-untyped-call]

    def done(self) -> None:
        """Print trial's summary, then ours."""
        super().done()
        print(f"\nThe {SHOWN} slowest of {len(self.took)} tests, which took {sum(self.took.values()):.0f} s in all:")
        for name, seconds in sorted(self.took.items(), key=lambda each: -each[1])[:SHOWN]:
            print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m` has it; worker processes are given the same path
    DistTrialRunner._distReporterFactory = TimingReporter
    trial.run()
