"""The context in which a plugin makes a destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from harn.triggers.pool import Shared
    from harn.vm.interfaces import IInterpreter


@frozen(kw_only=True)
class DestinationContext:
    """
    The target of a destination that a plugin is asked to make, and what it may use.

    :ivar target: as ``IDestinationPlugin.check`` returned it.
    :ivar reactor: the reactor, or a clock in a test.
    :ivar interpreter: for the scheme of local functions, the interpreter that has resolved them; None for any other.
    """

    target: str
    reactor: Any
    interpreter: Shared[IInterpreter] | None = None
