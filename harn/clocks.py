"""Time from an ``IReactorTime``: Unix seconds, and RFC 3339 for what people and events read."""

from __future__ import annotations

from datetime import datetime, timezone


def rfc3339(seconds: float) -> str:
    """Write ``seconds`` (Unix) as RFC 3339 in UTC with milliseconds, for example ``2026-01-02T03:04:05.678Z``."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
