"""Values that are kept by name, over restarts, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def encode_standing(standing: Mapping[str, Any]) -> dict[str, bytes | None]:
    """
    Encode values at once, so that later changes to them do not count; None stays None, and removes what is kept.

    :raises TypeError: a value holds something that JSON has no form for.
    """
    return {name: None if value is None else _encoder.encode(value) for name, value in standing.items()}
