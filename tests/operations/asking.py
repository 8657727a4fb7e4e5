"""Operations asked as the registry asks them, without one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from harn.operations.model import Caller, Operation, Role
from harn.operations.parameters import Parameters


def asked(operation: Operation[Any, Any, Any], service: Any, wanted: Parameters, actor: str = "me") -> Deferred[Any]:
    """Run an operation on a service."""
    running: Any = operation.run(service, Caller(actor=actor, role=Role.ADMIN), wanted)
    return Deferred.fromCoroutine(running)
