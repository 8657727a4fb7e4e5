"""The same load by wrk, where it is installed: it costs next to nothing, so that its tail is the server's alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.cores import LOAD, on_core
from benchmarks.load import CONNECTIONS, Result, Running
from benchmarks.traffic import body, headers

_SCRIPT = Path(__file__).with_name("post.lua")


def is_installed() -> bool:
    """Return whether wrk can be used."""
    return shutil.which("wrk") is not None


def generator() -> str:
    """Return the generator that `saturate` uses."""
    return "wrk" if is_installed() else "benchmarks.load (wrk is not installed)"


def saturate(url: str, seconds: float, connections: int = CONNECTIONS) -> Result:
    """Load a route with as much as it takes, with wrk or else with our own generator."""
    if not is_installed():
        return Running(url, seconds, connections).result()
    content = body()
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        environ = {
            **os.environ,
            "BODY": file.name,
            "HEADERS": "".join(f"{name}: {value}\n" for name, value in headers(content).items()),
            "RUN": f"{time.time_ns():x}",
        }
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s"]
        with on_core(LOAD):
            done = subprocess.run(
                [*command, str(_SCRIPT), url], env=environ, capture_output=True, text=True, check=True
            )
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    return Result(**json.loads(found[1]))
