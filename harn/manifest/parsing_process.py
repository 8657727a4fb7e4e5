"""Parsing of a big manifest in a child process, where its length does not stall the reactor."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import harn
from harn.errors import StageFailed
from harn.manifest.document import FOR_THE_PARENT
from harn.processes import signals_blocked

# Isolated, so that neither the environment nor the working directory can shadow a module. The directory of this harn is
# passed, since it may be a checkout.
_PROGRAM = """import sys
if sys.argv[1] not in sys.path: sys.path.insert(0, sys.argv[1])
from harn.manifest.document import main
main()"""


class _Parsing(ProcessProtocol):
    """Protocol of one child: writes the text, collects the answer."""

    transport: IProcessTransport

    def __init__(self, data: bytes) -> None:
        self.answered: Deferred[bytes] = Deferred(self._cancel)
        self._data = data
        self._output: list[bytes] = []
        self._errors: list[bytes] = []

    def connectionMade(self) -> None:
        self.transport.write(self._data)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output.append(data)

    def errReceived(self, data: bytes) -> None:
        self._errors.append(data)

    def processEnded(self, reason: Failure) -> None:
        if self.answered.called:
            return
        if reason.check(ProcessDone):
            self.answered.callback(b"".join(self._output))
        else:
            said = b"".join(self._errors).decode("utf-8", "replace").strip().rpartition("\n")[2]
            why = said or reason.getErrorMessage()
            self.answered.errback(StageFailed("parse", f"the process that parses the manifest ended early: {why}"))

    def _cancel(self, _: Deferred[bytes]) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self.transport.loseConnection()


def parse_in_child(text: str, reactor: Any) -> Deferred[bytes]:
    """
    Parse ``text`` in a child process; cancelling kills it.

    :param reactor: an `IReactorProcess`.
    :return: the input of `harn.manifest.document.decode_parsed`.
    :raises StageFailed: the child could not be started, or ended before it answered.
    """
    processes: IReactorProcess = reactor
    root = os.path.dirname(os.path.dirname(os.path.abspath(harn.__file__)))
    parsing = _Parsing(text.encode("utf-8"))
    try:
        # env=None: the child needs what this interpreter needed to start, for example LD_LIBRARY_PATH.
        with signals_blocked(FOR_THE_PARENT):
            processes.spawnProcess(parsing, sys.executable, [sys.executable, "-I", "-c", _PROGRAM, root], env=None)
    except OSError as error:
        raise StageFailed("parse", f"cannot start a process to parse the manifest: {error}") from error
    return parsing.answered
