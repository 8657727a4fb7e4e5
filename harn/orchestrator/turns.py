"""
How long a thread keeps the reactor's waiting for the interpreter's lock.

A reload computes in a thread; with Python's own interval a request may have to wait 5 ms each time it wakes up
meanwhile. A shorter one costs that thread some switches, and requests next to nothing.
"""

from __future__ import annotations

import sys

INTERVAL = 0.0005
"""Seconds."""


def take_short_turns() -> None:
    """Let threads hand the interpreter's lock over sooner."""
    sys.setswitchinterval(INTERVAL)
