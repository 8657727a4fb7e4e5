"""
Wait until a server serves just the files of a directory, after these were applied as its ConfigMap.

python wait.py http://127.0.0.1:8080 manifest [SECONDS], with an API key in HARN_API_KEY. Exits 0 when it serves them,
and 1, with the reason, when they are refused, held for confirmation, or not there in time (180 s). Needs Python alone.
"""

import hashlib
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any


def main() -> None:
    """Wait as the command line says."""
    url, directory = sys.argv[1], Path(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 180.0
    wanted = {each.name: digest(each) for each in directory.iterdir() if each.is_file()}
    ends_at = time.monotonic() + seconds
    told, before = "", None
    while time.monotonic() < ends_at:
        try:
            live = ask(f"{url.rstrip('/')}/admin/generation")
        except (OSError, ValueError) as error:
            told = f"the server does not answer: {error}"
        else:
            if serves(live, wanted):
                print(f"generation {live['generation']} serves {directory}")
                return
            trouble = live["waiting"] or live["last_failed"] or {"at": "", "error": "nothing was refused"}
            told = f"generation {live['generation']} still serves other files: {trouble['error']}"
            # What was refused before these files came says nothing about them.
            before = trouble["at"] if before is None else before
            if trouble["at"] not in ("", before):
                sys.exit(told)
        time.sleep(0.5)
    sys.exit(f"{told} (after {seconds:g} s)")


def ask(url: str) -> Any:
    """Give the answer's JSON value."""
    request = urllib.request.Request(url, headers={"X-API-Key": os.environ["HARN_API_KEY"]})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def digest(path: Path) -> str:
    """Digest a file as the server does."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def serves(live: Any, wanted: dict[str, str]) -> bool:
    """Tell whether the manifest and every module that serve are those that are wanted."""
    folder = os.path.dirname(live["manifest"]["path"])
    found = {os.path.basename(path): each for path, each in live["files"].items() if os.path.dirname(path) == folder}
    return all(wanted.get(name) == each for name, each in found.items())


if __name__ == "__main__":
    main()
