"""Reading until the files are at rest, so that manifest, sources, secrets and certificates are of one moment."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.task import deferLater

from harn.errors import FilesUnsettled, ManifestInvalid
from harn.files import ADVICE, Noted
from harn.manifest.source import ManifestSource
from harn.reload.archive import Content
from harn.reload.build import Builder
from harn.reload.inputs import Inputs
from harn.reload.stages import Stages

SETTLE = 0.02
"""Seconds for which a file must not have been written: some ticks of the clock of the file system's time stamps."""
LONGEST = 1.0
"""Seconds after which reading gives up on files that change while they are read."""
PAUSE = 0.02
"""Seconds between one reading and the next."""
STARTING = 5.0
"""Seconds that each stage may take at least while nothing serves: the first interpreter must start."""


async def read_settled(
    builder: Builder, stages: Stages, previous: Inputs | None, content: Content | None = None
) -> tuple[ManifestSource, Inputs]:
    """
    Read, parse and check the manifest and read all that it names, as they were together at one moment.

    :param previous: the live ones: what is unchanged in them is not analysed again.
    :param content: of an earlier generation, instead of the manifest's and the sources' files.
    :raises ManifestInvalid: of stage ``parse``, ``validate`` or ``resolve``.
    :raises FilesUnsettled: no two looks at the files were equal for `LONGEST`.
    :raises StageFailed: a stage failed otherwise.
    """
    clock = builder.files.reactor
    ends_at, listings = clock.seconds() + LONGEST, True
    while True:
        noted = builder.noted()
        read: tuple[ManifestSource, Inputs] | None = None
        wrong: ManifestInvalid | None = None
        try:
            read = await _read(builder, stages, previous, content, noted)
        except ManifestInvalid as error:
            wrong = error
        changed = await stages.run(stages.current, _changed(builder, noted, listings=listings and wrong is not None))
        if not changed and wrong is not None:
            raise wrong
        if not changed and read is not None:
            return read
        listings = False  # a directory may change for other reasons, again and again
        if clock.seconds() >= ends_at:
            raise FilesUnsettled(stages.current, keeps_changing(changed))
        await deferLater(clock, PAUSE)


async def _read(
    builder: Builder, stages: Stages, previous: Inputs | None, content: Content | None, noted: Noted
) -> tuple[ManifestSource, Inputs]:
    source = await stages.run("parse", builder.source(content, noted))
    loaded = await stages.run("parse", builder.load(source, None if previous is None else previous.loaded))
    timeout = loaded.manifest.orchestrator.reload.timeout
    stages.timeout = timeout if previous is not None else max(STARTING, timeout)
    bundle = None if content is None else content.bundle
    return source, await stages.run("resolve", builder.read(loaded, previous, bundle, noted))


async def _changed(builder: Builder, noted: Noted, *, listings: bool) -> Sequence[str]:
    wait = noted.wait()
    if wait > 0:
        await deferLater(builder.files.reactor, wait)
    changed: Sequence[str] = await builder.files.read(lambda: noted.changed(listings=listings), noted=noted)
    return changed


def keeps_changing(paths: Collection[str]) -> str:
    """Return which files keep changing, and what to do."""
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    what = f"{min(paths)}{more}" if paths else "what the manifest needs"
    return f"{what} keeps changing: no two readings were equal; {ADVICE}"
