"""The levels of log records by name, the most talkative first."""

from __future__ import annotations

LEVELS = ("debug", "info", "warn", "error", "critical")
"""Those of ``twisted.logger``; not asked of it there, since who only names them need not import it."""

DEFAULT = "info"
