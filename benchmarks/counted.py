"""
A server that counts what its reactor's thread runs: functions of Python, and instructions of the interpreter.

``python -m benchmarks.counted`` takes the arguments of ``harn orchestrator serve``, and serves. At a SIGRTMIN it begins
to count, which makes it some twenty times slower; at the next one it writes the counts to `FILE` in its working
directory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from attrs import define, field, frozen

from harn.testing.server import ServerProcess, wait_until

LAUNCHER = (sys.executable, "-m", "benchmarks.counted")
"""For `ServerProcess`."""
FILE = "counted.json"
_SWITCH = signal.SIGRTMIN


@define
class Counts:
    """Calls and instructions by function, since they were last emptied."""

    calls: Counter[CodeType] = field(factory=Counter)
    instructions: Counter[CodeType] = field(factory=Counter)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the functions that the calling thread runs meanwhile."""
        self.begin()
        try:
            yield
        finally:
            sys.settrace(None)

    def begin(self) -> None:
        """Count the functions that the calling thread calls from now on."""
        sys.settrace(self._called)

    def includes(self, file: str) -> bool:
        """Return whether the functions of a file are counted."""
        return True

    def _called(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if not self.includes(frame.f_code.co_filename):
            return None
        self.calls[frame.f_code] += 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._ran

    def _ran(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            self.instructions[frame.f_code] += 1
        return self._ran


@frozen
class Function:
    """A function that was called: its file and line, how often it was called, and how many instructions it ran."""

    file: str
    line: int
    name: str
    calls: int
    instructions: int


def switch(server: ServerProcess) -> None:
    """Begin to count in a server that `LAUNCHER` has started, or end that, after which it writes the counts."""
    server.signal(_SWITCH)


def counted(server: ServerProcess) -> Sequence[Function]:
    """End the counting, and return all functions, those with the most instructions first."""
    path = Path(server.directory, FILE)
    switch(server)
    wait_until(path.exists, "the server's counts")
    return [Function(*each) for each in json.loads(path.read_text())]


def _write(counts: Counts) -> None:
    """Write the counts in one step."""
    found = [
        (code.co_filename, code.co_firstlineno, code.co_qualname, counts.calls[code], instructions)
        for code, instructions in counts.instructions.most_common()
    ]
    beside = Path(FILE + ".new")
    beside.write_text(json.dumps(found))
    os.replace(beside, FILE)


def main() -> None:
    """Serve by the arguments of the command, and answer signals."""
    counts = Counts()

    def switched(*_: object) -> None:
        if sys.gettrace() is None:
            counts.begin()
        else:
            sys.settrace(None)
            _write(counts)

    signal.signal(_SWITCH, switched)
    from harn.cli.serve import serve
    from harn.orchestrator.process import hold_back

    hold_back()  # as `serve` does, before the reactor is imported, which takes time
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
