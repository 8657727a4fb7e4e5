"""What a manifest's triggers name: functions and secrets, each with the places that name it."""

from __future__ import annotations

from attrs import frozen

from harn.manifest.model import Manifest
from harn.model.references import FunctionReference


@frozen
class Use:
    """A place: ``key`` is dotted, as `harn.manifest.load.LoadedManifest.problem` takes it."""

    trigger_id: str
    key: str


def secret_references(manifest: Manifest) -> dict[str, tuple[Use, ...]]:
    """Give every secret reference, as written, and where it is named."""
    uses: dict[str, list[Use]] = {}
    for spec in manifest.triggers.values():
        for name, references in spec.secrets.items():
            for index, reference in enumerate(references):
                key = f"secrets.{name}" if len(references) == 1 else f"secrets.{name}[{index}]"
                uses.setdefault(reference, []).append(Use(spec.id, key))
        for index, reference in enumerate(spec.handler_secrets or ()):
            uses.setdefault(reference, []).append(Use(spec.id, f"handler_secrets[{index}]"))
    return {reference: tuple(places) for reference, places in uses.items()}


def function_references(manifest: Manifest) -> dict[FunctionReference, tuple[Use, ...]]:
    """Give every handler and predicate, and where it is named."""
    uses: dict[FunctionReference, list[Use]] = {}
    for spec in manifest.triggers.values():
        uses.setdefault(spec.handler_reference(), []).append(Use(spec.id, "handler"))
        predicate = spec.predicate_reference()
        if predicate is not None:
            uses.setdefault(predicate, []).append(Use(spec.id, "when"))
    return {reference: tuple(places) for reference, places in uses.items()}
