"""The live generation as ``GET /admin/generation`` shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.clocks import rfc3339
from harn.reload.generation import Generation
from harn.reload.report import ReloadReport


def describe_generation(
    live: Generation | None,
    last_failed: ReloadReport | None,
    waiting: ReloadReport | None,
    files_now: Mapping[str, str],
) -> dict[str, Any]:
    """
    Describe the live generation.

    :param waiting: the report of what waits for somebody: a reload that is held, or files that do not settle.
    :param files_now: digests of its files as they read now; what differs from its own is drift.
    """
    told = {"last_failed": _told(last_failed), "waiting": _told(waiting)}
    if live is None:
        return {"generation": 0, "digest": None, "drift": False, **told}
    manifest, files = live.inputs.manifest, live.inputs.files
    drifted = sorted(path for path, digest in files.items() if files_now.get(path) != digest)
    return {
        "generation": live.number,
        "digest": live.digest,
        "source": live.source,
        "actor": live.actor,
        "since": rfc3339(live.since),
        "manifest": {"path": manifest.path, "digest": manifest.digest},
        "files": dict(files),
        "drift": bool(drifted),
        "drifted_files": drifted,
        "drifted_digests": {path: files_now[path] for path in drifted if path in files_now},
        "recalled": live.recalled,
        "reason": live.reason,
        **told,
    }


def _told(report: ReloadReport | None) -> dict[str, Any] | None:
    return None if report is None else {**report.to_dict(), "at": rfc3339(report.at)}
