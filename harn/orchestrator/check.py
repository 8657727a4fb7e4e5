"""Checking a manifest as a reload does, without a server: parse, validate, resolve, prepare; nothing is adopted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from secrets import token_bytes
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from harn.clocks import WallClock
from harn.connectors.catalog import Catalog
from harn.destinations.catalog import DestinationCatalog
from harn.errors import ManifestInvalid, StageFailed
from harn.lifecycle import Lifecycle
from harn.model.problem import Problem
from harn.options import ServeOptions
from harn.orchestrator.assemble import make_interpreters, make_surroundings
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import DEFAULT_TIMEOUT
from harn.reload.reader import FileReader
from harn.reload.resolution import Resolution
from harn.reload.runs import Stages
from harn.reload.targets import Targets


@frozen
class Checked:
    """
    The result of a check: every problem of the first stage that had any, and how much was checked.

    :ivar warnings: problems that do not prevent serving.
    """

    problems: tuple[Problem, ...]
    triggers: int
    modules: int
    warnings: tuple[str, ...] = ()


def check_manifest(
    reactor: Any, options: ServeOptions, environ: Mapping[str, str], *, with_secrets: bool = True
) -> Deferred[Checked]:
    """
    Check the manifest that ``options`` name, with the secrets that ``environ`` has.

    :param with_secrets: False: read neither secrets nor credentials, and prepare only what needs none.
    """
    return Deferred.fromCoroutine(_check(reactor, options, environ, with_secrets))


async def _check(reactor: Any, options: ServeOptions, environ: Mapping[str, str], with_secrets: bool) -> Checked:
    interpreters = make_interpreters(options, reactor, environ, Lifecycle())
    interpreters.startService()
    builder = Builder(
        files=FileReader(reactor, WallClock()),
        manifest_path=options.manifest,
        manifest_name=options.manifest_name,
        external=evolve(make_surroundings(options, environ, token_bytes(32)), with_secrets=with_secrets),
        resolution=Resolution(interpreters),
        connections=Connections(reactor, Catalog.discover()),
        targets=Targets(reactor, DestinationCatalog.discover()),
    )
    stages = Stages(reactor, DEFAULT_TIMEOUT, builder.doing)
    triggers = modules = 0
    warnings: tuple[str, ...] = ()
    try:
        async with AsyncExitStack() as stack:
            _, inputs = await builder.read_settled(stages, None)
            triggers, modules = len(inputs.manifest.triggers), len(inputs.bundle.modules)
            warnings = inputs.warnings
            prepared = await stages.run("resolve", builder.resolve(inputs, None, stack, afresh=True))
            await stages.run("prepare", builder.connect(prepared, None, stack))
            await stages.run("prepare", builder.aim(prepared, stack))
        problems: tuple[Problem, ...] = ()
    except ManifestInvalid as error:
        problems = error.problems
    except StageFailed as error:
        problems = error.problems or (Problem(file=options.manifest_name, message=str(error)),)
    finally:
        await builder.resolution.pool.idle()
        await builder.connections.pool.idle()
        await builder.targets.pool.idle()
        await interpreters.stopService()
        builder.files.close()
    return Checked(problems, triggers, modules, warnings)
