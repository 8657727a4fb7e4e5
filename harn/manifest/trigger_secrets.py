"""Validation of ``secrets`` of one trigger: which names it has, and what each refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.manifest.diagnostics import KeyPath, describe, quote, suggest
from harn.manifest.interfaces import ProviderRules
from harn.manifest.tables import Table
from harn.model.references import parse_secret_reference


def check_secrets(trigger: Table, rule: ProviderRules | None) -> dict[str, tuple[str, ...]]:
    """Return the references of a trigger's secrets, by name, in the order in which they are tried."""
    secrets = trigger.table("secrets") if "secrets" in trigger.raw else None
    references = {name: _check_references(secrets, name, rule) for name in secrets.raw} if secrets is not None else {}
    if rule is None:
        return references
    known = (*rule.required_secrets, *rule.optional_secrets)
    for name in references:
        if name not in known:
            assert secrets is not None
            secrets.problem(name, f"provider {quote(rule.provider)} has no such secret", suggest(name, known))
    for name in rule.required_secrets:
        if name not in references and (secrets is not None or "secrets" not in trigger.raw):
            example = f'secrets = {{ {name} = "{rule.provider}/{name.replace("_", "-")}" }}'
            path: KeyPath = (*trigger.path, "secrets", name)
            trigger.diagnostics.add(
                path, f"is missing: provider {quote(rule.provider)} requires it", f"write {example}"
            )
    _check_one_of(trigger, references, rule)
    return references


def _check_one_of(trigger: Table, references: Mapping[str, Any], rule: ProviderRules) -> None:
    """Add a problem if a trigger has none of the secrets of which its provider requires one."""
    if not rule.one_of_secrets or any(name in references for name in rule.one_of_secrets):
        return
    name = rule.one_of_secrets[0]
    path: KeyPath = (*trigger.path, "secrets", name)
    other = " or ".join(rule.one_of_secrets)
    example = f'secrets = {{ {name} = "{rule.provider}/{name.replace("_", "-")}" }}'
    trigger.diagnostics.add(path, f"is missing: provider {quote(rule.provider)} requires {other}", f"write {example}")


def _check_references(secrets: Table, name: str, rule: ProviderRules | None) -> tuple[str, ...]:
    value = secrets.raw[name]
    if isinstance(value, str):
        _check_reference(secrets, (name,), value, rule)
        return (value,)
    if not isinstance(value, list):
        hint = f'write for example {name} = "github/webhook-secret"'
        secrets.problem(name, f"must be a secret reference or an array of them, got {describe(value)}", hint)
        return ()
    if not value:
        secrets.problem(name, "is empty", "name at least one secret")
    for index, one in enumerate(value):
        _check_reference(secrets, (name, index), one, rule)
    return tuple(one for one in value if isinstance(one, str))


def _check_reference(secrets: Table, key: KeyPath, value: Any, rule: ProviderRules | None) -> None:
    """Check one reference. No message repeats it: the author may have written the secret itself."""
    namespace = rule.provider if rule is not None else "github"
    example = f"write namespace/name, for example {namespace}/webhook-secret"
    place = (*secrets.path, *key)
    if not isinstance(value, str):
        secrets.diagnostics.add(place, f"must be a secret reference, got {describe(value)}", example)
        return
    try:
        reference = parse_secret_reference(value)
    except ValueError:
        secrets.diagnostics.add(place, "must be a secret reference", example)
        return
    if rule is not None and reference.namespace != rule.provider:
        message = f"must lie in the namespace of the provider, {quote(rule.provider)}"
        secrets.diagnostics.add(place, message, f"write {rule.provider}/ and the secret's name")
