"""Run a deploy for a push to the main branch."""

import os
import re
import subprocess
import time
from pathlib import Path

from harn.handlers import Context, Reject, RetryAfter, TriggerEvent

SCRIPT = Path(__file__).parent / "deploy.sh"
BUSY = 75
"""The exit status of a script that cannot run now: EX_TEMPFAIL of sysexits.h."""


def is_main(event: TriggerEvent) -> bool:
    """Return whether the push is to the main branch, and did not delete it."""
    push = event.provider_payload["raw"]
    return push["ref"] == f"refs/heads/{push['repository']['default_branch']}" and not push["deleted"]


def deploy(event: TriggerEvent, context: Context) -> dict:
    """
    Run the script with the commit that was pushed.

    At the end of the trigger's ``timeout`` the server ends the script with all that it has started. The script gets a
    commit and nothing else of the event: no text of a stranger reaches a shell.
    """
    commit = event.provider_payload["raw"]["after"]
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise Reject(f"not a commit: {commit!r}")
    context.log.info("deploy begins", commit=commit)
    done = subprocess.run(
        [str(SCRIPT), commit],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        timeout=max(1.0, context.deadline - time.time()),
        check=False,
    )
    last = done.stdout.splitlines()[-20:]
    if done.returncode == BUSY:
        raise RetryAfter(60, "another deploy runs")
    if done.returncode != 0:
        raise RuntimeError(f"the deploy of {commit} ended with {done.returncode}:\n" + "\n".join(last))
    return {"commit": commit, "output": last}
