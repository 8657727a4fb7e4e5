"""
Entry point of the ``harn`` command and ``python -m harn``: what cannot wait until the rest is imported. The signals
that a server handles would end a process that is not ready for them, and the import takes a while. A closed standard
descriptor would be reused for the next file that is opened, such as the event log.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

HELD_BACK = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Run the command with the arguments of the process, and end it."""
    # Ctrl-C before the import has finished ends the process without a traceback of imports.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if serves(sys.argv[1:]):
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        gc.disable()  # until it serves; see `harn.orchestrator.maintenance`
    open_standard_streams()
    from harn.cli.main import main as run

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def serves(arguments: Sequence[str]) -> bool:
    """Return whether the command runs a server, which unblocks the signals itself."""
    words = [each for each in arguments if not each.startswith("-")]
    return words[:1] == ["serve"] or words[:2] == ["orchestrator", "serve"]


def open_standard_streams() -> None:
    """Open closed descriptors among 0 to 2 on the null device, and set a Python stream for each."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    main()
