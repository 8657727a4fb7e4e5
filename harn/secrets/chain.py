"""The chain of secret providers: the first that has a secret gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harn.errors import SecretUnavailable
from harn.model.references import SecretReference
from harn.secrets.environment import EnvironmentSecrets, FileSecrets
from harn.secrets.interfaces import ISecretProvider
from harn.secrets.system_keyring import KeyringSecrets
from harn.secrets.trimming import trimmed

DEFAULT_PROVIDERS = "env,file"
"""The keyring takes part only where it is named: importing it is slow, and on a server there rarely is one."""

MOST_NAMED = 20

_PROVIDERS: Mapping[str, Callable[[Mapping[str, str], str], ISecretProvider]] = {
    "env": lambda environ, namespace: EnvironmentSecrets(environ),
    "file": lambda environ, namespace: FileSecrets(environ),
    "keyring": lambda environ, namespace: KeyringSecrets(namespace),
}


class SecretChain:
    """
    Providers in order. One chain serves one reading of a manifest: it notes which files it read.

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
        known = ", ".join(_PROVIDERS)
        for name in names:
            if name not in _PROVIDERS:
                raise SecretUnavailable(
                    f"HARN_SECRET_PROVIDERS names {name!r}, which is no provider; there are {known}"
                )
        if not names:
            raise SecretUnavailable(f"HARN_SECRET_PROVIDERS names no provider; there are {known}")
        return cls(_PROVIDERS[name](environ, namespace) for name in names)

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Give the value of ``reference``, without a byte order mark or white space around it; never empty.

        :raises SecretUnavailable: nobody has it, or whoever should cannot give it; says what to set.
        """
        for provider in self._providers:
            value = provider.resolve(reference)
            if value is not None:
                return self._trim(reference, value)
        advice = ", or ".join(provider.advice(reference) for provider in self._providers)
        raise SecretUnavailable(f"secret {reference} is not set; {advice}")

    def _trim(self, reference: SecretReference, value: bytes) -> bytes:
        """Take off what is around a value, and note it."""
        try:
            kept, found = trimmed(value)
        except SecretUnavailable as error:
            raise SecretUnavailable(f"secret {reference} cannot be used: {error}") from error
        if not kept:
            raise SecretUnavailable(f"secret {reference} holds nothing but {found}; give it a value")
        if found is not None:
            self._trimmed[reference] = found
        return kept

    def resolve_many(
        self, references: Iterable[SecretReference]
    ) -> tuple[dict[SecretReference, bytes], dict[SecretReference, str]]:
        """Give the values of those that resolve, and for each of the others what is wrong and what to do."""
        values: dict[SecretReference, bytes] = {}
        problems: dict[SecretReference, str] = {}
        for reference in dict.fromkeys(references):
            try:
                values[reference] = self.resolve(reference)
            except SecretUnavailable as error:
                problems[reference] = str(error)
        return values, problems

    def warnings(self) -> tuple[str, ...]:
        """Say of which of the values given so far something was taken off; at most `MOST_NAMED` are named."""
        said = [
            f"secret {reference}: {found} around its value was taken off; store it without"
            for reference, found in self._trimmed.items()
        ]
        if len(said) > MOST_NAMED:
            said[MOST_NAMED:] = [f"and {len(said) - MOST_NAMED} more secrets with something around their values"]
        return tuple(said)

    def describe(self) -> str:
        """Name the providers in order, for example ``env -> file``."""
        return " -> ".join(provider.name for provider in self._providers)

    def files(self) -> frozenset[str]:
        """Absolute paths of the files that were looked at so far: what to watch."""
        return frozenset().union(*(provider.files() for provider in self._providers))

    def __repr__(self) -> str:
        return f"<SecretChain {self.describe()}>"
