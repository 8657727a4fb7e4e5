"""
Which server runs on a state directory, as its files tell other processes.

For commands that must start fast: nothing of Twisted is imported here.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from harn.store.lock import holder

STATE_FILE = "orchestrator-state.json"
RUNNING = "running"
STOPPED = "stopped"


def state_path(state_dir: str) -> str:
    """Return the path of the state file."""
    return os.path.join(state_dir, STATE_FILE)


def read_state(state_dir: str) -> dict[str, Any] | None:
    """Read what a server wrote; None for a file that is missing, unreadable or something else."""
    try:
        with open(state_path(state_dir), "rb") as file:
            document = msgspec.json.decode(file.read())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def running_url(state_dir: str) -> str | None:
    """
    Return the URL of the server that runs on ``state_dir``, None when there is none.

    A server that was killed leaves a file that says it runs, and its number may be another process's by now: the lock
    decides. It is checked last, when it is most likely held, so that looking does not keep a server from taking it.
    """
    state = read_state(state_dir)
    if state is None or state.get("status") != RUNNING:
        return None
    pid, url = state.get("pid"), state.get("listener_url")
    if not isinstance(pid, int) or not isinstance(url, str) or not is_alive(pid) or holder(state_dir) is None:
        return None
    return url


def is_alive(pid: int) -> bool:
    """Return whether a process has this number, of any user."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
