"""The chain of secret providers: the first that has a secret returns it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harn.errors import SecretUnavailable
from harn.model.references import SecretReference
from harn.secrets.providers import EnvironmentSecrets, FileSecrets, ISecretProvider, KeyringSecrets, trimmed

DEFAULT_PROVIDERS = "env,file"
"""The keyring is used only where the variable lists it: importing it is slow, and a server rarely has one."""

MOST_NAMED = 20

_KNOWN = ("env", "file", "keyring")


def _provider(name: str, environ: Mapping[str, str], namespace: str) -> ISecretProvider:
    """Return the provider of a name out of `_KNOWN`."""
    if name == "keyring":
        return KeyringSecrets(namespace)
    return EnvironmentSecrets(environ) if name == "env" else FileSecrets(environ)


class SecretChain:
    """
    Providers in order. One chain serves one reading of a manifest, and records which files it read.

    ``resolve`` and ``resolve_many`` may block and belong in a thread; the rest is free.
    """

    def __init__(self, providers: Iterable[ISecretProvider]) -> None:
        self._providers: tuple[ISecretProvider, ...] = tuple(providers)
        self._trimmed: dict[SecretReference, str] = {}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> SecretChain:
        """
        Make the chain that ``HARN_SECRET_PROVIDERS`` describes (comma separated, default ``env,file``).

        ``HARN_SECRET_NAMESPACE`` (default ``harn``) is the service under which the keyring holds our secrets.

        :raises SecretUnavailable: an unknown provider, or none; says which there are.
        """
        text = environ.get("HARN_SECRET_PROVIDERS", DEFAULT_PROVIDERS)
        namespace = environ.get("HARN_SECRET_NAMESPACE") or "harn"
        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        known = ", ".join(_KNOWN)
        for name in names:
            if name not in _KNOWN:
                raise SecretUnavailable(f"HARN_SECRET_PROVIDERS must list known providers ({known}), got {name!r}")
        if not names:
            raise SecretUnavailable(f"HARN_SECRET_PROVIDERS must list at least one provider ({known}), got none")
        return cls(_provider(name, environ, namespace) for name in names)

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Return the value of ``reference``, without a byte order mark or white space around it; never empty.

        :raises SecretUnavailable: no provider has it, or the one that should cannot read it; the message says what to
            set.
        """
        for provider in self._providers:
            value = provider.resolve(reference)
            if value is not None:
                return self._trim(reference, value)
        advice = ", or ".join(provider.advice(reference) for provider in self._providers)
        raise SecretUnavailable(f"secret {reference} is not set; {advice}")

    def _trim(self, reference: SecretReference, value: bytes) -> bytes:
        """Remove a byte order mark and white space around a value, and record that for `warnings`."""
        try:
            kept, found = trimmed(value)
        except SecretUnavailable as error:
            raise SecretUnavailable(f"secret {reference} cannot be used: {error}") from error
        if not kept:
            raise SecretUnavailable(f"secret {reference} holds only {found}; give it a value")
        if found is not None:
            self._trimmed[reference] = found
        return kept

    def resolve_many(
        self, references: Iterable[SecretReference]
    ) -> tuple[dict[SecretReference, bytes], dict[SecretReference, str]]:
        """Return the values that resolve, and for each other reference what is wrong and what to do."""
        values: dict[SecretReference, bytes] = {}
        problems: dict[SecretReference, str] = {}
        for reference in dict.fromkeys(references):
            try:
                values[reference] = self.resolve(reference)
            except SecretUnavailable as error:
                problems[reference] = str(error)
        return values, problems

    def warnings(self) -> tuple[str, ...]:
        """Return a warning for each value that had something trimmed, for at most `MOST_NAMED` of them by name."""
        said = [
            f"secret {reference}: {found} around its value was taken off; store it without"
            for reference, found in self._trimmed.items()
        ]
        if len(said) > MOST_NAMED:
            said[MOST_NAMED:] = [f"and {len(said) - MOST_NAMED} more secrets with something around their values"]
        return tuple(said)

    def describe(self) -> str:
        """Return the providers' names in order, for example ``env -> file``."""
        return " -> ".join(provider.name for provider in self._providers)

    def files(self) -> frozenset[str]:
        """Return the absolute paths of the files read or looked for so far; the watcher watches them."""
        return frozenset().union(*(provider.files() for provider in self._providers))

    def __repr__(self) -> str:
        return f"<SecretChain {self.describe()}>"
