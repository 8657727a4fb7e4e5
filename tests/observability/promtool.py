"""The checks of Prometheus' own ``promtool``, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from unittest import SkipTest


def check(*arguments: str, text: str = "") -> str:
    """
    Run ``promtool check`` with ``text`` on its standard input; return what it found, an empty text if all is well.

    :raises SkipTest: it is not installed.
    """
    program = shutil.which("promtool")
    if program is None:
        raise SkipTest("promtool is not on the PATH; it is in Debian's package prometheus")
    done = subprocess.run(
        [program, "check", *arguments], input=text, capture_output=True, text=True, timeout=180, check=False
    )
    if done.returncode == 0:
        return done.stderr.strip()
    return (done.stderr + done.stdout).strip() or f"exit {done.returncode}"
