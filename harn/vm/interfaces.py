"""The interfaces of interpreters, for generations and the dispatcher, and the values that cross them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from harn.model.exchange import Endings, Running
from harn.model.references import FunctionReference
from harn.model.trace import TraceContext
from harn.vm.bundle import Bundle
from harn.vm.sources import BundleProblem


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One attempt of one delivery: the predicate first (if any), then the handler.

    :ivar handler: ``module:function``, as is ``predicate``; None to run the predicate alone.
    :ivar envelope: encoded `harn.model.event.Envelope`. Empty: the function gets the JSON value in ``body``, and no
        event.
    :ivar secrets: references of the secrets that it may fetch; None: any.
    :ivar timeout: seconds that predicate and handler may run together.
    :ivar trace: the trace context of the attempt; None while traces are off.
    """

    binding: str
    trigger_id: str
    event_id: str
    handler: str | None
    predicate: str | None
    envelope: bytes
    body: bytes
    attempt: int
    timeout: float
    replay_of: str | None = None
    secrets: tuple[str, ...] | None = None
    trace: TraceContext | None = None

    def __post_init__(self) -> None:
        if self.handler is None and self.predicate is None:
            raise ValueError("a call needs a handler or a predicate")

    def refusal_of(self, reference: str) -> str:
        """Return why it may not fetch a secret; empty when it may."""
        if self.secrets is None or reference in self.secrets:
            return ""
        allowed = ", ".join(self.secrets) or "none"
        return f"{reference} is not among the handler_secrets of trigger {self.trigger_id}, which name {allowed}"


class ISecrets(Interface):
    """Where handlers get secrets from."""

    def read(trigger_id: str, reference: str) -> Deferred[bytes]:
        """
        Return a secret's value for a handler of a trigger.

        It may fail with any error, whose message the handler gets.

        :param reference: its text: ``integration/item``.
        """


class PendingImport(Struct, frozen=True):
    """
    An import that has not ended.

    :ivar what: says so, and names the module.
    :ivar place: ``file:line`` of the line at which it is; empty where that is not in a local module.
    """

    what: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.what}, at {self.place}" if self.place else self.what


class IInterpreter(Interface):
    """Runs the functions of one bundle, without access to other user code."""

    bundle_id: str = Attribute("The content address of its bundle.")
    running: int = Attribute("Number of calls in it.")
    hook_failures: Sequence[str] = Attribute("The start hooks that failed, each with the reason.")

    def resolve(references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """
        Import the modules and look up the functions, in the interpreter itself.

        :return: a problem for each reference that cannot be used; empty when all can. ``where`` is ``module:function``.
            Cancelling the Deferred kills a hanging import.
        """

    def begin(call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """
        Begin one call. With ``alone``, in a process of its own in which nothing else runs meanwhile.

        :param attempt: the attempt that this call makes; ``endings`` gets it back when it has ended, perhaps before
            this returns: with what it returned; or with `harn.errors.AttemptFailed`, one class for each kind of failure
            of its own; or with `harn.errors.CallInterrupted`, as the process died or was killed under it.
        """

    def serve() -> Deferred[Sequence[str]]:
        """
        Run the start hooks of its modules, unless they have run: it was adopted. Calls wait until they have ended.

        Fires with `hook_failures`. Without it they run before the first call of a handler.
        """

    def importing() -> PendingImport | None:
        """Return the import that has not ended; None if none is under way."""

    def is_up() -> bool:
        """Return False while its process is being replaced after a death."""

    def close() -> Deferred[None]:
        """
        Refuse further calls, run the stop hooks if it served, end the process (or thread), wait until it is gone.

        Idempotent.
        """


class IInterpreters(Interface):
    """Makes interpreters; a service that keeps a warm spare."""

    def exchange() -> None:
        """
        Report the calls that have ended, and send those that wait, now, and not at the end of the reactor's turn.

        For a turn that takes long, as one with hundreds of requests: without it, calls would begin and end once in it.
        """

    def try_hooks_again() -> None:
        """Run start hooks that failed again, in every interpreter: a resource that they need may be free now."""

    def create(bundle: Bundle, *, spare: bool = True) -> Deferred[IInterpreter]:
        """
        Return an interpreter with the bundle's finder installed and nothing imported yet.

        :param spare: use the warm spare, which is then replaced; else start a process for this one alone, so that after
            its `close` the processes, and the count of restarts, are as before.
        :raises StageFailed: no process can be started.
        """
