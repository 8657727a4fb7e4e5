"""
The interfaces of destinations. The interpreter of local functions is one, found and used as third-party ones are.

Order of life, which `harn.testing.destinations` checks: ``prepare`` once, ``begin`` any number of times after it,
``close`` exactly once (after a failed ``prepare`` too). ``prepare`` and ``close`` may return a Deferred, be coroutines,
or plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from harn.manifest.interfaces import IHandlerCheck
from harn.model.exchange import OutgoingDelivery, Returned

if TYPE_CHECKING:
    from harn.triggers.pool import Shared
    from harn.vm.interfaces import IInterpreter


class DestinationContext(Struct, frozen=True, kw_only=True):
    """
    The target of a destination that a plugin is asked to make, and what it may use.

    :ivar target: as ``IDestinationPlugin.check`` returned it.
    :ivar reactor: the reactor, or a clock in a test.
    :ivar interpreter: for the scheme of local functions, the interpreter that has resolved them; None for any other.
    """

    target: str
    reactor: Any
    interpreter: Shared[IInterpreter] | None = None


class IDestination(Interface):
    """
    Takes the deliveries for one target. All triggers, and all generations, that name the target share one.

    It is closed when no generation names the target, and no version that did has work left.
    """

    def prepare() -> Any:
        """
        Acquire all that can fail; show nothing outside. A reload waits for it.

        :raises StageFailed: the target cannot be used, and why; so does any other exception, less kindly.
        """

    def begin(delivery: OutgoingDelivery, *, alone: bool = False) -> Deferred[Returned]:
        """
        Begin one attempt. Several may run at the same time, also of one delivery: one that was given up may still end.

        Cancelling the Deferred ends the attempt as if its time were up, at ``delivery.timeout`` seconds at the latest.

        :param alone: the delivery may be what ended the destination before: nothing else should run beside it, where
            that can be.
        :return: fires when it has arrived. A coroutine will do.
        :raises AttemptFailed: one of its classes; the delivery is tried again, as the trigger's retry policy has it.
            `HandlerRejected`: it is not; `HandlerRetryAfter`: it is, then. Any other exception is a
            `DestinationFailed`.
        :raises CallInterrupted: this does not count as an attempt; the delivery is begun again soon.
        """

    def close() -> Any:
        """Release everything."""


class IDestinationPlugin(IPlugin, IHandlerCheck):
    """One scheme of destinations; found with ``twisted.plugin.getPlugins`` in ``harn.plugins``."""

    scheme: str = Attribute("What ``handler`` in the manifest begins with, before ``://``: for example ``file``.")
    example: str = Attribute("A handler as the manifest may name it, for example ``file:///var/log/events.jsonl``.")
    # ``is_remote`` may be left out, and so is not declared: whether targets are on other machines, True by default.
    # Then a trigger that names one has a circuit, unless it sets its own.

    def check(target: str) -> str:
        """
        Check a handler of the manifest that names the scheme. Pure computation: looks at nothing outside.

        :return: its usual spelling; equal ones are one destination.
        :raises ValueError: it is not valid; the message is ``must be ..., got ...; write ...``.
        """

    def destination(context: DestinationContext) -> IDestination:
        """Make the destination of one target; acquire nothing yet."""
