"""How a recorded event was treated, told from its delivery's row and attempts, whatever database keeps them."""

from __future__ import annotations

from harn.model import delivery as model

HANDLED = "handled"
SKIPPED = "skipped"
FILTER_ERROR = "filter_error"
UNKNOWN = "unknown"


def treatment(state: str, reason: str | None, passed: bool, last_outcome: str | None, succeeded: bool) -> str:
    """
    Tell how an event was treated.

    :param state: the delivery's; ``reason``: why it is dead, if it is.
    :param passed: its predicate said yes.
    :param last_outcome: its last attempt's, if there was one; ``succeeded``: whether any attempt did.
    """
    if state == model.DEAD and reason == model.FILTER_ERROR:
        return FILTER_ERROR
    if state == model.DONE and last_outcome == "skipped":
        return SKIPPED
    return HANDLED if passed or succeeded else UNKNOWN
