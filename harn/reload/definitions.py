"""The definitions of the next generation, and what differs from the live ones. Pure, for a thread."""

from __future__ import annotations

from collections.abc import Mapping

from harn.manifest.model import Manifest
from harn.reload.inputs import Inputs, code_digest_of
from harn.triggers.binding import Definition
from harn.triggers.reconcile import Plan, reconcile
from harn.vm.bundle import Bundle


def define(manifest: Manifest, bundle: Bundle, live: Mapping[str, Definition]) -> dict[str, Definition]:
    """
    Define every trigger of the manifest, whose functions lie in the bundle.

    The definition of a trigger that did not change is the live object itself, so that comparing it costs nothing.
    """
    code = code_digest_of(bundle)
    fingerprints = manifest.fingerprints
    definitions: dict[str, Definition] = {}
    handlers: dict[str, str] = {}
    for trigger_id, spec in manifest.triggers.items():
        handler_code = handlers.get(spec.handler)
        if handler_code is None:
            handler_code = handlers[spec.handler] = code(spec.handler)
        predicate_code = None if spec.when is None else code(spec.when)
        known = live.get(trigger_id)
        if (
            known is not None
            and (known.spec is spec or known.spec_fingerprint == fingerprints[trigger_id])
            and known.handler_code == handler_code
            and known.predicate_code == predicate_code
        ):
            definitions[trigger_id] = known
        else:
            definitions[trigger_id] = Definition.of(spec, fingerprints[trigger_id], handler_code, predicate_code)
    return definitions


def compare(inputs: Inputs, live: Mapping[str, Definition]) -> tuple[dict[str, Definition], Plan]:
    """Define every trigger and reconcile with the live ones."""
    definitions = define(inputs.manifest, inputs.bundle, live)
    return definitions, reconcile(live, definitions)
