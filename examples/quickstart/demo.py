"""
Serve this directory's manifest with demo credentials, and print commands to try it with.

`make run` starts it; by hand: `python examples/quickstart/demo.py`. It needs harn installed in the Python that runs it.
With `postgres` (`make run STORE=postgres`) events are kept in a PostgreSQL that is started for it, and gone afterwards.
"""

import hashlib
import hmac
import os
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
STATE_DIR = HERE.parent.parent / ".harn" / "quickstart"
TRIGGER = "github-issues"
DELIVERY = HERE / "issue-opened.json"
READY = "HTTP listener ready on "

# For a demo on this machine only: anybody can read them here.
DEMO_ENVIRONMENT = {
    "HARN_SECRET_GITHUB_WEBHOOK_SECRET": "demo-webhook-secret",
    "HARN_ORCHESTRATOR_API_KEYS": "demo-api-key",
}


def main(store: str = "") -> int:
    """Serve until Ctrl-C, with a PostgreSQL of its own if ``store`` is ``postgres``; give the server's exit status."""
    if store != "postgres":
        return serve({**DEMO_ENVIRONMENT, **os.environ}, STATE_DIR)
    from harn.testing.postgres import local_postgres

    with local_postgres() as server, TemporaryDirectory(prefix="harn-quickstart-") as state_dir:
        print(f"PostgreSQL listens: {server.url()}", flush=True)
        return serve({**DEMO_ENVIRONMENT, **os.environ, "HARN_ORCHESTRATOR_STORE": server.url()}, Path(state_dir))


def serve(environment: dict[str, str], state_dir: Path) -> int:
    """Serve until Ctrl-C; give the server's exit status."""
    command = [sys.executable, "-m", "harn", "orchestrator", "serve"]
    command += ["--config", str(HERE / "harn.toml"), "--state-dir", str(state_dir)]
    if not environment.get("HARN_ORCHESTRATOR_LISTEN"):
        command += ["--bind", f"127.0.0.1:{usual_or_any_port(8080)}"]
    # The terminal sends Ctrl-C to the server too, which then ends by itself: wait for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    assert server.stderr is not None
    for line in server.stderr:
        sys.stderr.write(line)
        if READY in line:
            print_commands(line.partition(READY)[2].strip(), environment, state_dir)
    return server.wait()


def usual_or_any_port(port: int) -> int:
    """Return ``port`` if it is free, else 0, which means any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def print_commands(url: str, environment: dict[str, str], state_dir: Path) -> None:
    """Print the URL, a signed delivery and a synthetic event, each on one line."""
    secret = environment["HARN_SECRET_GITHUB_WEBHOOK_SECRET"].encode()
    signature = hmac.new(secret, DELIVERY.read_bytes(), hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    curl = ["curl", "-sS", "-X", "POST", f"{url}/triggers/{TRIGGER}"]
    for name, value in headers.items():
        curl += ["-H", f"{name}: {value}"]
    curl += ["--data-binary", f"@{DELIVERY}"]
    harn = str(Path(sys.executable).with_name("harn"))
    fire = [harn, "orchestrator", "fire", TRIGGER, "--state-dir", str(state_dir)]
    key = shlex.quote(environment["HARN_ORCHESTRATOR_API_KEYS"])
    print(f"\nThe orchestrator serves {HERE.name} at {url}\n")
    print("Send it a signed delivery:\n")
    print(shlex.join(curl))
    print("\nOr a synthetic event:\n")
    print(f"HARN_ORCHESTRATOR_API_KEYS={key} {shlex.join(fire)}")
    print("\nEdit handlers.py or harn.toml, reload, and fire again. Ctrl-C ends it.\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
