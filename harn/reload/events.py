"""The lifecycle events of reloads; see `harn.lifecycle`."""

from __future__ import annotations

from attrs import frozen

from harn.reload.generation import Candidate
from harn.reload.report import ReloadReport, ReloadRequest


@frozen(eq=False)
class ReloadBegan:
    """A reload that may change something runs from now on."""

    request: ReloadRequest


@frozen(eq=False)
class Adopted:
    """
    A generation is live, since this turn of the reactor.

    :ivar previous: the number of the one before; 0 for none.
    :ivar waits: it is a server's first, and serves from `FirstServes` on.
    """

    candidate: Candidate
    request: ReloadRequest
    previous: int
    waits: bool = False


@frozen(eq=False)
class FirstServes:
    """A server's first generation serves: its port is open, or was taken over from the program before."""


@frozen(eq=False)
class ReloadEnded:
    """A reload that `ReloadBegan` announced has ended; ``report`` is None when it was refused or cut off."""

    report: ReloadReport | None


@frozen(eq=False)
class PinEnded:
    """The watcher and a restart adopt the files again, since a reload was asked for; see `Pin`."""


@frozen(eq=False)
class ReloadsClosed:
    """Nothing more is adopted or decided: the server ends, or another program replaces it."""
