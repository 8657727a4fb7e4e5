"""The levels of log records by name, the most verbose first."""

from __future__ import annotations

LEVELS = ("debug", "info", "warn", "error", "critical")
"""The levels of ``twisted.logger``; listed here, so that a module which only names them need not import it."""

DEFAULT = "info"
