"""Start hooks of an adopted generation: the answer to its reload waits for them, the end of the server does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from harn.vm.interfaces import IInterpreter

CUT_OFF = "the server ends, and its on_start functions have not ended"


class StartHooks:
    """Runs them, one generation's after the other's."""

    def __init__(self) -> None:
        self._running: Deferred[Any] = succeed(())

    async def run(self, interpreter: IInterpreter) -> Sequence[str]:
        """Run those of an interpreter; return the failures, or `CUT_OFF` if `close` came before the end."""
        running = self._running = interpreter.serve()
        try:
            return await running
        except CancelledError:  # by `close`, or with the reload's task: what was adopted is published all the same
            return (CUT_OFF,)

    def close(self) -> None:
        """Stop waiting."""
        self._running.cancel()
