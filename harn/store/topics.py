"""Names of topics: which may be appended to, and which are views of the delivery tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from harn.errors import RouteUnknown

INBOX = "trigger.inbox.envelopes"
OUTBOX = "trigger.outbox"
ATTEMPTS = "trigger.attempts"
DEAD_LETTERS = "trigger.dlq"

VIEWS = (ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX)
OURS = (*VIEWS, "audit.operations", "orchestrator.lifecycle", "orchestrator.manifest")
"""Topics that there are also while nothing is in them."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_encoder = msgspec.json.Encoder()


def check_appendable(topic: str) -> None:
    """
    Refuse a topic that no record can be appended to.

    :raises ValueError: the name has other characters than letters, digits, ``.``, ``_``, ``-``, or is a view's.
    """
    if _NAME.fullmatch(topic) is None:
        raise ValueError(f"{topic!r} is no topic; write letters, digits, '.', '_' and '-' only")
    if topic in VIEWS:
        raise ValueError(f"topic {topic} shows the deliveries; nothing can be appended to it")


def check_known(topic: str, filled: Iterable[str]) -> None:
    """
    Refuse to read a topic that there is not.

    :param filled: those with records.
    :raises RouteUnknown: it is neither ours nor has records; says which there are.
    """
    known = sorted({*OURS, *filled})
    if topic not in known:
        raise RouteUnknown(f"there is no topic {topic!r}; there are: {', '.join(known)}")


def encode_record(payload: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """
    Encode a record's payload and headers as JSON, at once, so that later changes to them do not count.

    :raises TypeError: the payload holds something that JSON has no form for.
    """
    return _encoder.encode(payload), _encoder.encode(headers)
