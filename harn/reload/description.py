"""The live generation as ``GET /admin/generation`` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from harn.clocks import rfc3339
from harn.errors import FilesHang
from harn.reload.build import Builder
from harn.reload.generation import Generation
from harn.reload.report import ReloadReport

PATIENCE = 2.0
"""Seconds that reading the files may take; then drift is unknown."""


async def files_now(builder: Builder, live: Generation | None) -> Mapping[str, str] | str:
    """Give the digests of a generation's files as they read now; or, where they cannot be read in time, why."""
    if live is None:
        return {}
    try:
        return await Deferred.fromCoroutine(builder.files_now(live.inputs)).addTimeout(PATIENCE, builder.files.reactor)
    except TimeoutError:
        return builder.files.doing() or f"the files were not read within {PATIENCE:g} s"
    except FilesHang as error:
        return str(error)


def describe_generation(
    live: Generation | None,
    last_failed: ReloadReport | None,
    waiting: ReloadReport | None,
    files_now: Mapping[str, str] | str,
) -> dict[str, Any]:
    """
    Describe the live generation.

    :param waiting: the report of what waits for somebody: a reload that is held, or files that do not settle.
    :param files_now: digests of its files as they read now, to tell drift; or why they could not be read.
    """
    told = {"last_failed": _told(last_failed), "waiting": _told(waiting)}
    if live is None:
        return {"generation": 0, "digest": None, "drift": False, **told}
    manifest, files = live.inputs.manifest, live.inputs.files
    unknown, now = (files_now, files) if isinstance(files_now, str) else (None, files_now)
    drifted = sorted(path for path, digest in files.items() if now.get(path) != digest)
    return {
        "generation": live.number,
        "digest": live.digest,
        "source": live.source,
        "actor": live.actor,
        "since": rfc3339(live.since),
        "manifest": {"path": manifest.path, "digest": manifest.digest},
        "files": dict(files),
        "drift": None if unknown is not None else bool(drifted),
        "drifted_files": drifted,
        "drifted_digests": {path: now[path] for path in drifted if path in now},
        **({} if unknown is None else {"drift_unknown": unknown}),
        "hooks_failed": list(live.interpreter.value.hook_failures),
        "recalled": live.recalled,
        "reason": live.reason,
        **told,
    }


def _told(report: ReloadReport | None) -> dict[str, Any] | None:
    return None if report is None else {**report.to_dict(), "at": rfc3339(report.at)}
