"""
Wait until a server serves just the files of a directory, after these were applied as its ConfigMap.

python wait.py http://127.0.0.1:8080 manifest [SECONDS], with an API key in HARN_API_KEY. Exits 0 when it serves them,
and 1, with the reason, when they are refused, held for confirmation, or not there in time (180 s). What was refused
of earlier files is status apart: once just these files are mounted, the server is asked what it makes of them. Needs
Python alone.
"""

import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def main() -> None:
    """Wait as the command line says."""
    url, directory = sys.argv[1], Path(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 180.0
    wanted = {each.name: digest(each) for each in directory.iterdir() if each.is_file()}
    ends_at = time.monotonic() + seconds
    status, judged = "", None
    while time.monotonic() < ends_at:
        try:
            live = ask(url, "/admin/generation")
            if serves(live, wanted):
                print(f"generation {live['generation']} serves {directory}")
                return
            trouble = live["waiting"] or live["last_failed"] or {"at": None, "error": "nothing was refused"}
            status = f"generation {live['generation']} still serves other files: {trouble['error']}"
            # A refusal may be of earlier files, and these may be adopted soon: a dry run shows whether they are valid.
            if trouble["at"] != judged and mounted(live, wanted):
                plan, judged = ask(url, "/admin/plan", b""), trouble["at"]
                if plan["status"] != "ok":
                    sys.exit(f"generation {plan['generation']} still serves other files: {plan['error']}")
                if plan["plan"]["would_hold"]:
                    sys.exit(status)
        except (OSError, ValueError) as error:
            status = f"the server does not answer: {error}"
        time.sleep(0.5)
    sys.exit(f"{status} (after {seconds:g} s)")


def ask(url: str, target: str, body: bytes | None = None) -> Any:
    """Return the answer's JSON value; what a dry run finds wrong is an answer, too. With a body it is a POST."""
    request = urllib.request.Request(url.rstrip("/") + target, body, {"X-API-Key": os.environ["HARN_API_KEY"]})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        return json.load(error)


def digest(path: Path) -> str:
    """Digest a file as the server does."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def serves(live: Any, wanted: dict[str, str]) -> bool:
    """Return whether the manifest and every module that serve are those that are wanted."""
    return all(wanted.get(os.path.basename(path)) == each for path, each in beside(live).items())


def mounted(live: Any, wanted: dict[str, str]) -> bool:
    """Return whether the same files read now as is wanted, whatever serves."""
    now = {**live["files"], **live["drifted_digests"]}
    return all(wanted.get(os.path.basename(path), "unreadable") == now[path] for path in beside(live))


def beside(live: Any) -> dict[str, str]:
    """Return the digests of the live generation's files in the manifest's directory."""
    folder = os.path.dirname(live["manifest"]["path"])
    return {path: each for path, each in live["files"].items() if os.path.dirname(path) == folder}


if __name__ == "__main__":
    main()
