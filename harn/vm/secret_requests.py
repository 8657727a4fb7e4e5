"""Requests of handlers for secrets, and their answers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from harn.vm.frames import SecretAnswer, SecretRequested
from harn.vm.masking import Masks
from harn.vm.model import Call

SecretReader = Callable[[str, str], Deferred[bytes]]
"""From a trigger's id and a secret's reference to its value."""


def answer_secret(
    asked: SecretRequested, call: Call | None, read: SecretReader, masks: Masks, send: Callable[[SecretAnswer], None]
) -> None:
    """
    Read a secret and send it to the handler that requested it, or send why it has none.

    :param call: of the handler; None if that has ended.
    :param masks: gets the value, so that it is taken out of the handler's output.
    """
    refusal = "the call that requested it has ended" if call is None else call.refusal_of(asked.reference)
    if call is None or refusal:
        send(SecretAnswer(asked.number, None, refusal))
        return

    def answer(value: bytes) -> None:
        masks.add(value)
        send(SecretAnswer(asked.number, value, ""))

    def unavailable(failure: Failure) -> None:
        send(SecretAnswer(asked.number, None, failure.getErrorMessage() or type(failure.value).__name__))

    maybeDeferred(read, call.trigger_id, asked.reference).addCallback(answer).addErrback(unavailable)
