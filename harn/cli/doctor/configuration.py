"""Checks of the manifest, the code that it names, its secrets, the credentials of the admin API, and the plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from harn.auth.credentials import Credentials
from harn.cli.doctor.model import Row, failure, ok, skipped, warning
from harn.cli.doctor.subject import Subject
from harn.cli.sources import StoredRecords
from harn.connectors.catalog import Catalog
from harn.destinations.catalog import DestinationCatalog
from harn.errors import HarnError, SecretUnavailable
from harn.listener.handshakes import topic_of
from harn.manifest.model import Manifest, ReferenceSite, secret_references
from harn.model.display import REDACTED
from harn.model.problem import Problem
from harn.model.references import parse_secret_reference
from harn.secrets.providers import KNOWN, SecretChain

MANIFEST, CODE, PROVIDERS, CREDENTIALS = "manifest", "code", "secret providers", "credentials"
CONNECTORS, DESTINATIONS = "connectors", "destinations"
ADVICE = "correct it, and see with: harn orchestrator check"
LONGEST_CHECK = 120.0
"""Seconds that the check of the code may take."""
MOST_NAMED = 3


def check_manifest(subject: Subject) -> Iterator[Row]:
    """Check the manifest alone."""
    yield from rows_of_problems(MANIFEST, subject.problems)
    if subject.manifest is not None:
        triggers = len(subject.manifest.triggers)
        yield ok(MANIFEST, f"{subject.manifest.path}: {triggers} trigger{'' if triggers == 1 else 's'}")


def rows_of_problems(label: str, problems: Iterable[Problem]) -> Iterator[Row]:
    """Return a failure for each problem, with its place."""
    for problem in problems:
        place = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        said = ": ".join(part for part in (place, problem.where, problem.message) if part)
        yield failure(label, said, problem.hint or ADVICE)


def check_code(subject: Subject) -> Iterator[Row]:
    """Check the modules, functions and settings of connectors that the manifest names; in a process of its own."""
    if subject.manifest is None:
        yield skipped(CODE, "the manifest has problems")
        return
    command = [sys.executable, "-m", "harn", "orchestrator", "check", "--json", "--no-secrets"]
    command += ["--config", subject.options.manifest]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_CHECK, env=os.environ)  # noqa: S603
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        yield failure(CODE, f"importing it takes longer than {LONGEST_CHECK:g} s", ADVICE)
    except (OSError, ValueError) as error:
        why = f": {error}" if isinstance(error, OSError) else ""
        yield failure(CODE, f"the check of it ended without a result{why}", ADVICE)
    else:
        yield from rows_of_code(found)


def rows_of_code(found: Mapping[str, Any]) -> Iterator[Row]:
    """Return the finding about the document of ``check --json``."""
    problems = [Problem(**{name: each[name] for name in PROBLEM if name in each}) for each in found["problems"]]
    yield from rows_of_problems(CODE, problems)
    if not problems:
        modules = found["modules"]
        yield ok(CODE, f"{modules} module{'' if modules == 1 else 's'}: each handler and predicate was found")


PROBLEM = ("file", "line", "where", "message", "hint")


class ResolvedReference(Struct, frozen=True, kw_only=True):
    """
    The resolution of one reference to a secret.

    :ivar provider: the provider that has it, None where ``problem`` says what is wrong.
    """

    reference: str
    sites: Sequence[ReferenceSite] = ()
    provider: str | None = None
    problem: str = ""


def check_secrets(subject: Subject) -> Iterator[Row]:
    """Check that each reference of the manifest resolves; values are not kept."""
    try:
        chain = SecretChain.from_environment(subject.environ)
    except SecretUnavailable as error:
        yield failure(PROVIDERS, str(error), "correct HARN_SECRET_PROVIDERS in the server's environment")
        return
    whose = "the server's environment" if subject.is_environ_of_server else "the environment of this command"
    yield ok(PROVIDERS, f"{chain.describe()} (in {whose})")
    found = [] if subject.manifest is None else list(resolve_secrets(subject.manifest, chain))
    is_certain = subject.pid is None or subject.is_environ_of_server
    names = [each.name for each in chain.providers]
    yield from rows_of_secrets(names, found, is_certain=is_certain, has_demo=subject.has_demo_values)


def resolve_secrets(manifest: Manifest, chain: SecretChain) -> Iterator[ResolvedReference]:
    """Resolve every reference of a manifest."""
    for text, sites in secret_references(manifest).items():
        reference = parse_secret_reference(text)
        try:
            chain.resolve(reference)
            name = next(each.name for each in chain.providers if each.resolve(reference) is not None)
            yield ResolvedReference(reference=text, sites=sites, provider=name)
        except SecretUnavailable as error:
            yield ResolvedReference(reference=text, sites=sites, problem=str(error))


def rows_of_secrets(
    chain: Sequence[str], found: Sequence[ResolvedReference], *, is_certain: bool, has_demo: bool = False
) -> Iterator[Row]:
    """
    Return the finding about references.

    :param chain: the names of the providers in use.
    :param is_certain: False where a server runs whose environment cannot be read: it may well have them.
    :param has_demo: whether it has a demo value for each that is not set.
    """
    counts = Counter(each.provider for each in found)
    for name in KNOWN:
        if name in chain:
            yield ok(f"secret:{name}", f"{counts[name]} of {len(found)} references")
        else:
            yield skipped(f"secret:{name}", "not in HARN_SECRET_PROVIDERS")
    for each in found:
        if each.provider is None:
            said = f"{each.problem} (for {users_of(each.sites)})"
            hint = "set it in the server's environment, then reload: harn orchestrator reload"
            if has_demo:
                hint = "harn dev has a demo value for it; harn serve does not start before it is set"
                yield warning(f"secret:{each.reference}", said, hint)
            elif is_certain:
                yield failure(f"secret:{each.reference}", said, hint)
            else:
                hint = "the server may have it: check again as the server's user, who can read its environment"
                yield warning(f"secret:{each.reference}", said, hint)


def users_of(sites: Sequence[ReferenceSite]) -> str:
    """Return where a reference is used."""
    named = [f"{'[orchestrator]' if each.trigger_id is None else each.trigger_id}: {each.key}" for each in sites]
    return ", ".join(named[:MOST_NAMED]) + (f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else "")


def check_handshakes(subject: Subject) -> Iterator[Row]:
    """Check for secrets that senders brought with a handshake, and that were not set yet."""
    for spec in () if subject.manifest is None else subject.manifest.triggers.values():
        if spec.provider not in WITH_HANDSHAKE or spec.secrets:
            continue
        topic = topic_of(spec.provider)
        records: Sequence[Any] = ()
        with suppress(HarnError):
            records = StoredRecords(subject.state_dir).newest(topic, 1000)
        if any(each.payload.get("trigger_id") == spec.id for each in records):
            hint = (
                f"read it with `harn orchestrator events {topic}`, enter it at {spec.provider}, set it as the trigger's"
                " secret, and reload"
            )
            yield warning(f"{spec.provider}:{spec.id}", f"captured verification_token={REDACTED}, not set yet", hint)


WITH_HANDSHAKE = frozenset(("notion",))
"""Providers whose first request brings the secret."""


def check_credentials(subject: Subject) -> Iterator[Row]:
    """Check the credentials of the admin API."""
    try:
        found = Credentials.from_environment(subject.environ)
    except SecretUnavailable as error:
        yield failure(CREDENTIALS, str(error), "correct the variable or its file; a reload reads it again")
        return
    yield row_of_credentials(len(found.keys), found.hmac_secret is not None, found.warnings)


def row_of_credentials(keys: int, has_secret: bool, warnings: Sequence[str]) -> Row:
    """Return the finding about a number of keys and the secret of signed requests."""
    if not keys and not has_secret:
        return ok(CREDENTIALS, "none are set: the admin API takes the token in the state directory, and named keys")
    parts = [f"{keys} API key{'' if keys == 1 else 's'}"] if keys else []
    parts += ["a secret for signed requests"] if has_secret else []
    said = " and ".join(parts)
    if warnings:
        return warning(CREDENTIALS, f"{said}; {'; '.join(warnings)}", "store them without what was taken off")
    return ok(CREDENTIALS, said)


def check_plugins(subject: Subject) -> Iterator[Row]:
    """Check that each plugin can be used."""
    connectors, destinations = Catalog.discover(), DestinationCatalog.discover()
    yield from rows_of_plugins(CONNECTORS, sorted(connectors.providers), connectors.problems)
    yield from rows_of_plugins(DESTINATIONS, sorted(destinations.schemes), destinations.problems)


def rows_of_plugins(label: str, names: Sequence[str], problems: Sequence[Problem]) -> Iterator[Row]:
    """Return which plugins can be used, and a failure for each that cannot."""
    yield from rows_of_problems(label, problems)
    if names:
        yield ok(label, f"{len(names)}: {', '.join(names)}")
    else:
        hint = "install harn again; where a cache is stale, remove harn/plugins/dropin.cache"
        yield failure(label, "none were found", hint)
