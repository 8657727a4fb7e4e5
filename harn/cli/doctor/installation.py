"""Checks of the installation: versions, Twisted's cache of plugins, the systemd unit."""

from __future__ import annotations

import os
import pickle
import platform
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

from msgspec import Struct
from twisted.plugin import IPlugin

import harn
from harn.cli.doctor.model import Row, failure, ok, skipped, warning
from harn.cli.doctor.subject import Subject
from harn.discovery import PACKAGES

VERSIONS, CACHE, UNIT = "versions", "plugin cache", "systemd unit"
NAME = "dropin.cache"
OLDEST_PYTHON, OLDEST_SQLITE = (3, 11), (3, 35)
"""The first releases that harn runs with; SQLite's brought RETURNING."""


def check_versions(subject: Subject) -> Iterator[Row]:
    """Check the installed versions, and that of the server."""
    found = {
        "harn": harn.__version__,
        "Python": platform.python_version(),
        "Twisted": metadata.version("Twisted"),
        "SQLite": sqlite3.sqlite_version,
    }
    served = (subject.state or {}).get("harn_version") if subject.pid is not None else None
    yield row_of_versions(found, served)


def row_of_versions(found: Mapping[str, str], served: str | None) -> Row:
    """Return the finding about versions by name, and of that of a server that runs; None for none."""
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    for name, oldest in (("Python", OLDEST_PYTHON), ("SQLite", OLDEST_SQLITE)):
        if numbers_of(found[name]) < oldest:
            wanted = ".".join(map(str, oldest))
            return failure(VERSIONS, f"{said}: {name} is too old", f"install {name} {wanted} or later")
    if served is not None and served != found["harn"]:
        hint = "kill -USR2 of its process starts the new program in its place (docs/howto/systemd.md)"
        return warning(VERSIONS, f"{said}; the server still runs harn {served}", hint)
    return ok(VERSIONS, said)


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the first numbers of a version."""
    return tuple(int(each) for each in re.findall(r"\d+", version)[:2])


class CachedModule(Struct, frozen=True):
    """A module of plugins: the names of those that it has, and of those that the cache has of it (None: none of it)."""

    name: str
    present: frozenset[str]
    cached: frozenset[str] | None


def check_plugin_cache(subject: Subject) -> Iterator[Row]:
    """Check that Twisted's caches have the plugins that the modules have."""
    places = [
        (package, each) for package in PACKAGES for each in import_module(package).__path__ if os.path.isdir(each)
    ]
    yield from rows_of_caches(
        {os.path.join(directory, NAME): read_cached(package, directory) for package, directory in places}
    )


def read_cached(package: str, directory: str) -> Sequence[CachedModule] | None:
    """Return the modules of one directory of plugins; None where it has no cache, or one that cannot be read."""
    try:
        with open(os.path.join(directory, NAME), "rb") as file:
            cache: Mapping[str, Any] = pickle.load(file)  # noqa: S301 - Twisted loads the same file at each start
    except Exception:
        return None
    found = []
    for name in sorted(each.removesuffix(".py") for each in os.listdir(directory) if each.endswith(".py")):
        if name == "__init__" or (directory_of(package, name) != directory):
            continue
        cached = cache.get(name)
        found.append(
            CachedModule(
                f"{package}.{name}",
                plugins_of(f"{package}.{name}"),
                None if cached is None else frozenset(each.name for each in cached.plugins),
            )
        )
    return found


def directory_of(package: str, name: str) -> str | None:
    """Return the directory that a module of a package is imported from; None where it cannot be imported."""
    try:
        return os.path.dirname(import_module(f"{package}.{name}").__file__ or "")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None  # the row of connectors names it


def plugins_of(module: str) -> frozenset[str]:
    """Return the names of the plugins in a module that was imported."""
    return frozenset(name for name, value in vars(import_module(module)).items() if IPlugin(value, None) is not None)


def rows_of_caches(caches: Mapping[str, Sequence[CachedModule] | None]) -> Iterator[Row]:
    """Return the finding about caches by path, each with its modules; None for one that is not there."""
    current = 0
    for path, modules in caches.items():
        stale = [each.name for each in modules or () if each.cached is not None and each.cached != each.present]
        missing = [each.name for each in modules or () if each.cached is None and each.present]
        if stale:
            yield failure(CACHE, f"{path} is stale for {', '.join(stale)}", f"rm {path}; it is made again when needed")
        elif missing:
            hint = f"run `harn manifest schema` once as the owner of {path}, or remove it"
            yield warning(CACHE, f"{path} lacks {', '.join(missing)}: each start looks at them again", hint)
        else:
            current += 1
    if current == len(caches):
        yield ok(CACHE, f"current in {current} director{'y' if current == 1 else 'ies'}")


UNIT_PLACES = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system")
RUNS_HARN = re.compile(r"(harn|python\S* -m harn)\s+(orchestrator\s+)?serve\b|twistd\b.*\bharn-orchestrator\b")


def check_unit(subject: Subject) -> Iterator[Row]:
    """Check the units that run a server."""
    home = os.path.expanduser("~/.config/systemd/user")
    units = list(find_units((*UNIT_PLACES, home)))
    if not units:
        yield skipped(UNIT, "no unit on this machine runs harn")
    for path, text in units:
        yield from rows_of_unit(path, text)


def find_units(places: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield path and text of each service whose command runs a server."""
    for place in places:
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            path = os.path.join(place, name)
            if not name.endswith(".service") or os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read(100_000)
            except OSError:
                continue
            if any(RUNS_HARN.search(command) for command in settings_of(text).get("ExecStart", ())):
                yield path, text


def settings_of(text: str) -> Mapping[str, Sequence[str]]:
    """Return the values of each setting of a unit, in order; lines that end in a backslash continue."""
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.lstrip().startswith(("#", ";")):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def rows_of_unit(path: str, text: str) -> Iterator[Row]:
    """Return the finding about the text of a unit."""
    settings = {name: values[-1] for name, values in settings_of(text).items()}
    wanted: list[str] = []
    if settings.get("Type") not in ("notify", "notify-reload"):
        wanted.append("Type=notify, so that it is started when it serves, and a failed start is seen")
    if settings.get("Restart", "no") == "no":
        wanted.append("Restart=on-failure")
    if settings.get("KillMode") not in ("mixed", "process"):
        wanted.append("KillMode=mixed, so that handlers may finish")
    limit = settings.get("LimitNOFILE", "").split(":")[0]
    if not limit or (limit.isdecimal() and int(limit) < 4096):
        wanted.append("LimitNOFILE=65536")
    if wanted:
        hint = f"systemctl edit {os.path.basename(path)}: {'; '.join(wanted)}"
        yield warning(UNIT, f"{path} lacks {len(wanted)} setting{'' if len(wanted) == 1 else 's'}", hint)
    else:
        yield ok(UNIT, path)
