"""Names that matter, and the content of their files: everything here queries the file system, in a thread."""

from __future__ import annotations

import os
import stat

from harn.vm.sources import find_modules
from harn.watch.interfaces import IWatchedServer
from harn.watch.model import Seen, Watched
from harn.wire import digest_bytes

NOTHING = digest_bytes(b"")
"""The digest of an empty file; keyed digests differ, and such a file is recognized by its size alone."""
DEEPEST = 3
"""Levels of directories below the manifest's that are searched for modules."""
MOST_MODULES = 500
"""Modules after which no further directory is searched."""
MOST_DIRECTORIES = 1000
"""Directories after which no further one is searched."""
MOST_LINKS = 40
"""Links that are followed from one name, as the system itself limits them."""


def link_chain(path: str) -> set[str]:
    """Return every name whose replacement may change the content of ``path``: itself, and each link on the way."""
    names: set[str] = set()
    pending = [os.path.abspath(path)]
    while pending and len(names) < MOST_LINKS:
        current = pending.pop()
        if current in names:
            continue
        names.add(current)
        parts = current.split(os.sep)[1:]
        prefix = os.sep
        for index, part in enumerate(parts):
            prefix = os.path.join(prefix, part)
            target = _target(prefix)
            if target is not None:
                names.add(prefix)
                onward = os.path.join(os.path.dirname(prefix), target, *parts[index + 1 :])
                pending.append(os.path.normpath(onward))
                break
    return names


def _target(path: str) -> str | None:
    """Return a link's target; None for anything else. One call, as the link may be removed between two."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def look(watched: Watched, server: IWatchedServer) -> Seen:
    """Read the watched files. While they are as the live ones, no other file is searched or read."""
    newcomers = find_newcomers(watched)
    wanted = watched.paths | newcomers
    content = server.read(wanted)
    differing = {path for path, digest in watched.live.items() if content.get(path) != digest}
    sizes = {path: _size(path) for path in differing | {watched.manifest}}
    return Seen(
        content=content,
        beside=server.read(modules_below(watched.manifest) - wanted) if differing or newcomers else {},
        newcomers=newcomers,
        # Read and measured at two moments: in a flood of writes each may find a file truncated only for that moment.
        empty=frozenset(path for path, size in sizes.items() if size == 0 or content.get(path) == NOTHING),
        missing=frozenset(path for path, size in sizes.items() if size is None),
    )


def find_newcomers(watched: Watched) -> frozenset[str]:
    """
    Return the modules that a reload would read and that are not live, as far as the live generation refers to them.
    """
    bundle = watched.bundle
    if bundle is None:
        return frozenset()
    names: set[str] = set()
    for module in bundle.modules.values():
        names.add(module.name)
        names.update(module.import_names)
    for name in tuple(names):
        while name := name.rpartition(".")[0]:
            names.add(name)
    root = os.path.dirname(watched.manifest)
    return frozenset(find_modules(root, watched.exports, names, watched.include) - watched.live.keys())


def _size(path: str) -> int | None:
    """Return the bytes of a regular file; -1 for another kind; None if it does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def modules_below(manifest: str) -> frozenset[str]:
    """
    List the Python modules next to the manifest and below, as far as `DEEPEST`.

    Hidden directories and virtual environments are skipped.
    """
    found: set[str] = set()
    root = os.path.dirname(manifest)
    for count, (directory, inner, names) in enumerate(os.walk(root), 1):
        found.update(os.path.join(directory, name) for name in names if _is_module(name))
        if len(found) >= MOST_MODULES or count >= MOST_DIRECTORIES:
            break
        level = 0 if directory == root else os.path.relpath(directory, root).count(os.sep) + 1
        if level >= DEEPEST:
            inner.clear()
        inner[:] = sorted(name for name in inner if not _is_foreign(os.path.join(directory, name)))
    return frozenset(found)


def _is_module(name: str) -> bool:
    return name.endswith(".py") and name[: -len(".py")].isidentifier()


def _is_foreign(directory: str) -> bool:
    name = os.path.basename(directory)
    return name.startswith((".", "__")) or name == "node_modules" or os.path.exists(f"{directory}/pyvenv.cfg")
