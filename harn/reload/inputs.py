"""
Everything that a generation is made from: manifest, sources, secrets, credentials, certificates. It is read once, in a
thread.

The digest covers the manifest, the sources of the bundle, and, as keyed hashes, every secret, credential and
certificate; so inputs with equal digests make equal generations.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from msgspec.structs import replace
from zope.interface import Attribute, Interface

from harn.auth.credentials import Credentials
from harn.connectors.signatures import decode_standard_secret
from harn.errors import ListenerUnusable, ManifestInvalid, SecretUnavailable
from harn.files import read_regular
from harn.manifest.alerts import fault_of_url
from harn.manifest.load import LoadedManifest
from harn.manifest.model import Manifest, alert_secrets, function_references, secret_references
from harn.manifest.source import LARGEST
from harn.model.problem import Problem
from harn.model.references import LOCAL, FunctionReference, parse_secret_reference, scheme_of
from harn.reload.client_authorities import read_authorities
from harn.secrets.providers import KnownSecrets, SecretChain, secret_hash
from harn.vm.bundle import Bundle
from harn.vm.sources import BundleProblem, read_bundle
from harn.wire import digest_bytes, digest_value


class ICertificateFiles(Interface):
    """The files of the listener's certificate; provided by `harn.listener.tls.CertificateFiles`."""

    paths: tuple[str, ...] = Attribute("Certificate and key, absolute.")

    def load() -> Any:
        """
        Load the certificate and key for the listener. Blocks, so it runs in a thread.

        :raises ListenerUnusable: the files cannot be used.
        """


@frozen(kw_only=True)
class ExternalInputs:
    """
    The inputs other than the manifest and its sources, which the server reads again on each reload.

    :ivar environ: the process's environment.
    :ivar certificate: the files of ``--cert`` and ``--key``; None without TLS.
    :ivar hash_key: the key for hashes of secrets, without which the hashes are useless; it survives restarts.
    :ivar settle: see `harn.files.Noted`.
    :ivar with_secrets: False only for a check that reads no secrets and no credentials.
    """

    environ: Mapping[str, str] = field(repr=False)
    certificate: ICertificateFiles | None = None
    hash_key: bytes = field(repr=False)
    settle: float | None = 0.0
    with_secrets: bool = True


@frozen(kw_only=True)
class Inputs:
    """
    All inputs of a generation, from one reading.

    :ivar secrets: the values of secrets, by the text of their reference.
    :ivar secret_hashes: the keyed hashes of secrets, by the text of their reference.
    :ivar known: recognises these secrets and credentials among other values.
    :ivar files: the sha256 of each file by absolute path: manifest and sources, and, keyed, credential and certificate
        files.
    :ivar references: every function that the manifest names.
    :ivar certificate: the loaded certificate of the listener; None without TLS.
    :ivar client_authorities: see `ClientAuthorities.certificates`.
    :ivar warnings: warnings about white space that was stripped from secrets and credentials.
    """

    loaded: LoadedManifest
    bundle: Bundle
    secrets: Mapping[str, bytes] = field(repr=False)
    secret_hashes: Mapping[str, str] = field(repr=False)
    known: KnownSecrets = field(repr=False)
    credentials: Credentials
    files: Mapping[str, str]
    references: frozenset[FunctionReference]
    digest: str
    secret_chain: str
    certificate: Any = field(default=None, repr=False)
    client_authorities: Mapping[str, bytes] = field(factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """The checked manifest."""
        return self.loaded.manifest

    @property
    def plain_files(self) -> frozenset[str]:
        """The files whose digest is not keyed: manifest and sources."""
        return frozenset((*self.loaded.files, *(module.path for module in self.bundle.modules.values())))

    def files_now(self, key: bytes) -> dict[str, str]:
        """Return the digests of the current content of ``files``, by path. Blocks, so it runs in a thread."""
        return current_digests(self.files, self.plain_files, key)


def named_functions(manifest: Manifest) -> frozenset[FunctionReference]:
    """Return every function that the manifest's triggers call, each once."""
    triggers = manifest.triggers.values()
    texts = {spec.handler for spec in triggers} | {spec.when for spec in triggers if spec.when is not None}
    texts |= {spec.poll for spec in triggers if spec.poll is not None}
    return frozenset(FunctionReference(*text.split(":")) for text in texts if scheme_of(text) == LOCAL)


def locate(loaded: LoadedManifest, problems: Sequence[BundleProblem]) -> list[Problem]:
    """Return a problem for each place in the manifest that names a function with a problem."""
    if not problems:
        return []  # the usual case, in which ten thousand triggers need not be searched
    uses = function_references(loaded.manifest)
    located: list[Problem] = []
    for problem in problems:
        users = uses.get(problem.reference, ()) if problem.reference is not None else ()
        if not users:
            located.append(problem.unlocated())
        for use in users:
            code = "" if problem.line is None else f"{problem.file}:{problem.line}"
            where = f" ({code})" if code else ""
            found = loaded.problem(use.trigger_id, use.key, problem.message + where, problem.hint)
            located.append(replace(found, code=code))
    return located


Problems = list[Problem]
"""The list to which a reading adds the problems that it finds."""


@frozen(kw_only=True)
class _Secrets:
    """
    The secrets that triggers name.

    :ivar values: the values, by the text of their reference.
    :ivar files: the paths of the files that hold secrets.
    :ivar chain: the names of the providers of secrets.
    :ivar warnings: warnings about white space that was stripped.
    """

    values: Mapping[str, bytes] = field(factory=dict, repr=False)
    files: frozenset[str] = frozenset()
    chain: str = ""
    warnings: tuple[str, ...] = ()


def _read_sources(loaded: LoadedManifest, previous: Inputs | None, bundle: Bundle | None, problems: Problems) -> Bundle:
    """Return the bundle that is given, else the one read from files; the live object if the bundle is unchanged."""
    manifest = loaded.manifest
    known = None if previous is None else previous.bundle
    if bundle is not None:
        return known if known is not None and known.bundle_id == bundle.bundle_id else bundle
    root, include = Path(manifest.path).parent, manifest.orchestrator.vm.include
    bundle, wrong = read_bundle(root, manifest.exports, named_functions(manifest), include, known)
    problems.extend(locate(loaded, wrong))
    return bundle


def _read_secrets(loaded: LoadedManifest, environ: Mapping[str, str], problems: Problems) -> _Secrets:
    """Resolve every secret that the manifest names, each once."""
    manifest = loaded.manifest
    specs = manifest.triggers.values()
    # Problems are reported in the order of the manifest.
    references = itertools.chain.from_iterable(spec.secrets.values() for spec in specs)
    texts = dict.fromkeys(itertools.chain.from_iterable(references))
    texts |= dict.fromkeys(text for spec in specs if spec.handler_secrets for text in spec.handler_secrets)
    texts |= dict.fromkeys(each.reference for each in alert_secrets(manifest))
    try:
        chain = SecretChain.from_environment(environ)
        resolved, wrong = chain.resolve_many(map(parse_secret_reference, texts))
    except SecretUnavailable as error:
        problems.append(Problem(file="environment", message=str(error)))
        return _Secrets()
    values = {str(reference): value for reference, value in resolved.items()}
    uses = secret_references(manifest) if wrong else {}
    problems.extend(
        loaded.problem(use.trigger_id, use.key, message)
        for reference, message in wrong.items()
        for use in uses[str(reference)]
    )
    problems.extend(check_alert_secrets(loaded, values))
    return _Secrets(values=values, files=frozenset(chain.files()), chain=chain.describe(), warnings=chain.warnings())


def _read_credentials(environ: Mapping[str, str], problems: Problems) -> Credentials:
    """Read the credentials of the admin API."""
    try:
        return Credentials.from_environment(environ)
    except SecretUnavailable as error:
        problems.append(Problem(file="environment", message=str(error)))
        return Credentials()


@frozen(kw_only=True)
class _Certificate:
    """The listener's certificate, and the keyed hashes of its files by path."""

    hashes: Mapping[str, str] = field(factory=dict)
    loaded: Any = None


def _read_certificate(external: ExternalInputs, previous: Inputs | None, problems: Problems) -> _Certificate:
    """
    Read the certificate; return the live object if the files are unchanged.

    The files are hashed before they are loaded, so a file that is replaced in between differs at the next reload.
    """
    files = external.certificate
    if files is None:
        return _Certificate()
    hashes = {path: hash_file(path, external.hash_key) for path in files.paths}
    if previous is not None and all(previous.files.get(path) == each for path, each in hashes.items()):
        return _Certificate(hashes=hashes, loaded=previous.certificate)
    try:
        return _Certificate(hashes=hashes, loaded=files.load())
    except ListenerUnusable as error:
        problems.append(Problem(file=files.paths[0], message=str(error)))
        return _Certificate()


def _credential_hashes(credentials: Credentials, key: bytes) -> list[str]:
    hmac_secret = () if credentials.hmac_secret is None else (credentials.hmac_secret,)
    return [secret_hash(key, each) for each in (*credentials.keys, *hmac_secret)]


def read_inputs(
    loaded: LoadedManifest, external: ExternalInputs, previous: Inputs | None, bundle: Bundle | None = None
) -> Inputs:
    """
    Read sources, secrets, credentials and certificates. Blocks, so it runs in a thread.

    :param previous: the live inputs; their unchanged parts are not analysed again.
    :param bundle: the sources of an earlier generation, used instead of files; None to read files.
    :raises ManifestInvalid: stage ``resolve`` found problems; the error has all of them.
    """
    problems: list[Problem] = []
    bundle = _read_sources(loaded, previous, bundle, problems)
    certificate = _read_certificate(external, previous, problems)
    authorities = read_authorities(loaded, problems)
    secrets = _read_secrets(loaded, external.environ, problems) if external.with_secrets else _Secrets()
    credentials = _read_credentials(external.environ, problems) if external.with_secrets else Credentials()
    if problems:
        raise ManifestInvalid(list(dict.fromkeys(problems)), stage="resolve")  # triggers may share a default
    manifest, key = loaded.manifest, external.hash_key
    hashes = {reference: secret_hash(key, value) for reference, value in secrets.values.items()}
    credential_hashes = _credential_hashes(credentials, key)
    secret_files = secrets.files.union(credentials.files)
    files = {
        **loaded.files,
        **bundle_files(bundle),
        **{path: hash_file(path, key) for path in sorted(secret_files)},
        **certificate.hashes,
        **{path: hash_file(path, key) for path in authorities.paths},
    }
    return Inputs(
        loaded=loaded,
        bundle=bundle,
        secrets=secrets.values,
        secret_hashes=hashes,
        known=KnownSecrets(key, frozenset((*hashes.values(), *credential_hashes))),
        credentials=credentials,
        files=files,
        references=named_functions(manifest),
        digest=digest_value([manifest.digest, bundle.bundle_id, hashes, credential_hashes, sorted(files.values())]),
        secret_chain=secrets.chain,
        certificate=certificate.loaded,
        client_authorities=authorities.certificates,
        warnings=(*secrets.warnings, *credentials.warnings),
    )


def bundle_files(bundle: Bundle) -> dict[str, str]:
    """Return the digests of the bundle's files, by path."""
    return {module.path: digest_bytes(module.source) for module in bundle.modules.values()}


def _read_now(path: str) -> bytes:
    """Read a regular file of a sensible size."""
    return read_regular(path, LARGEST)


def hash_file(path: str, key: bytes) -> str:
    """Return the keyed hash of a file that holds a secret; a constant if the file cannot be read."""
    try:
        return secret_hash(key, _read_now(path))
    except OSError:
        return "unreadable"


def current_digests(paths: Collection[str], plain: Collection[str], key: bytes) -> dict[str, str]:
    """
    Return the digests of the current content of files, by path. Blocks, so it runs in a thread.

    :param plain: the files of ``paths`` whose digest is not keyed.
    """
    found: dict[str, str] = {}
    for path in paths:
        if path not in plain:
            found[path] = hash_file(path, key)
            continue
        try:
            found[path] = digest_bytes(_read_now(path))
        except OSError:
            found[path] = "unreadable"
    return found


def renewed_since(before: Inputs, now: Inputs) -> tuple[str, ...]:
    """Return the secrets, and the files that hold a secret, that are in both inputs and have changed."""
    secrets = differing(before.secret_hashes, now.secret_hashes)
    plain = before.plain_files | now.plain_files
    files = (path for path in differing(before.files, now.files) if path not in plain)
    return (*(f"secret {reference}" for reference in secrets), *(f"file {path}" for path in files))


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names that are in both mappings with different digests, sorted."""
    return sorted(name for name, digest in now.items() if before.get(name, digest) != digest)


def without_secrets(inputs: Inputs) -> Inputs:
    """Return the inputs without the values of secrets, which a generation keeps only in its connectors."""
    return evolve(inputs, secrets={})


def values_for_alerts(manifest: Manifest, secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the values of the secrets that sending the manifest's alerts needs, by reference."""
    return {each.reference: secrets[each.reference] for each in alert_secrets(manifest)}


def check_alert_secrets(loaded: LoadedManifest, secrets: Mapping[str, bytes]) -> Iterator[Problem]:
    """
    Yield a problem for each secret with whose value no alert could be sent. No problem quotes the value.

    :param secrets: the values of the secrets that can be resolved, by reference.
    """
    for each in alert_secrets(loaded.manifest):
        value = secrets.get(each.reference)
        fault = None if value is None else _fault_of_alert_secret(each.key, value)
        if fault is not None:
            message = f"the value of secret {each.reference} cannot be used: {fault}"
            yield loaded.problem(each.site.trigger_id, each.site.key, message, "store another value")


def _fault_of_alert_secret(key: str, value: bytes) -> str | None:
    """Return the fault of the value of a secret; None if it has no fault."""
    if key == "url_secret":
        return fault_of_url(value.decode("utf-8", "replace"))
    if key != "signing_secret":
        return None
    try:
        decode_standard_secret(value)
    except ValueError as error:
        return str(error)
    return None
