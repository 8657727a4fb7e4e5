"""The JSON schema of a manifest, for editors: made of the same fields that check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harn.manifest.fields import Field
from harn.manifest.interfaces import JsonSchema, ProviderRules
from harn.manifest.model import MATCH, TRIGGER
from harn.manifest.settings import ORCHESTRATOR, OrchestratorSettings
from harn.manifest.tables import Shape
from harn.manifest.trigger import DEFAULT_KEYS
from harn.manifest.validate import INCLUDE
from harn.manifest.vocabulary import DEFAULTS, KINDS, ROUTE_KEYS, ROUTED
from harn.model.quantities import format_duration

_ID = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_./-]+(@[A-Za-z0-9_.-]+)?$"}


def manifest_json_schema(rules: Mapping[str, ProviderRules]) -> JsonSchema:
    """
    Describe a manifest (draft 2020-12): its keys, and the keys of each provider's triggers.

    :param rules: by provider.
    """
    return {
        "$schema": _ID,
        "title": "harn manifest",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "include": _described(INCLUDE),
            "package": _closed("The package.", {"name": {"type": "string", "description": "Its name."}}),
            "exports": {
                "type": "object",
                "description": "Module name -> its path, relative to the manifest.",
                "additionalProperties": {"type": "string"},
            },
            "orchestrator": _settings(ORCHESTRATOR, OrchestratorSettings()),
            "defaults": _defaults(rules),
            "triggers": {
                "type": "array",
                "description": "The triggers: events and how to handle them.",
                "items": _trigger(rules),
            },
        },
    }


def _closed(description: str, properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": dict(properties),
    }
    return {**schema, "required": list(required)} if required else schema


def _described(shape: Field) -> JsonSchema:
    schema = shape.json_schema()
    return {"description": shape.description, **schema} if shape.description else schema


def _settings(shape: Shape, defaults: Any) -> JsonSchema:
    properties: dict[str, Any] = {}
    for key, one in shape.fields.items():
        properties[key] = _described(one)
        default = getattr(defaults, shape.names[key])
        if default is not None:
            is_duration = properties[key].get("type") == "string"
            properties[key]["default"] = format_duration(default) if is_duration else msgspec.to_builtins(default)
    for key, inner in shape.tables.items():
        properties[key] = _settings(inner, getattr(defaults, shape.names[key]))
    for other, usual in shape.spellings().items():
        properties[other] = {**properties[usual], "deprecated": True, "description": f"Another spelling of {usual}."}
    return _closed(shape.description, properties)


def _keys(shape: Shape) -> JsonSchema:
    return {key: _described(one) for key, one in shape.fields.items()}


def _trigger(rules: Mapping[str, ProviderRules]) -> JsonSchema:
    properties = _keys(TRIGGER)
    properties["timeout"]["default"] = "30s"
    properties["provider"] = {"description": TRIGGER.fields["provider"].description, "enum": sorted(rules)}
    for key, shape in (("match", MATCH), *TRIGGER.tables.items()):
        properties[key] = _closed(shape.description, _keys(shape), tuple(sorted(shape.required)))
    properties["retry"]["properties"]["max"]["default"] = 0
    properties["secrets"] = {
        "type": "object",
        "description": "Name of a secret -> namespace/name, or an array of them to try in order.",
        "additionalProperties": {"anyOf": [_REFERENCE, {"type": "array", "minItems": 1, "items": _REFERENCE}]},
    }
    for key, value in DEFAULTS.items():
        properties[key] = {"const": value, "description": "Not supported yet: this value alone."}
    # Tables are allowed here for any provider; the conditions below restrict them by provider.
    properties.update({rule.table: True for rule in rules.values() if rule.table is not None})
    properties.update({key: True for rule in rules.values() for key in rule.keys})
    return {
        # Its kind, provider and handler may be defaults, which another file may have.
        **_closed("One trigger.", properties, ("id",)),
        "allOf": [_of_provider(rules[provider], rules) for provider in sorted(rules)],
    }


def _defaults(rules: Mapping[str, ProviderRules]) -> JsonSchema:
    known = _trigger(rules)["properties"]
    return _closed("Values of keys that a trigger does not give.", {key: known[key] for key in sorted(DEFAULT_KEYS)})


def _of_provider(rule: ProviderRules, rules: Mapping[str, ProviderRules]) -> JsonSchema:
    names = (*rule.required_secrets, *rule.optional_secrets)
    properties: dict[str, Any] = {
        "kind": {"enum": [kind for kind in rule.kinds if kind in KINDS]},
        "secrets": {"propertyNames": {"enum": list(names)}, "required": list(rule.required_secrets)},
    }
    for other in rules.values():
        if other.table is not None and other.table != rule.table:
            properties[other.table] = False
    then: dict[str, Any] = {"properties": properties, "required": []}
    properties.update({key: False for other in rules.values() for key in other.keys if key not in rule.keys})
    if rule.table is not None and rule.schema is not None:
        properties[rule.table] = rule.schema.json_schema()
    elif rule.schema is not None:
        schema = rule.schema.json_schema()
        properties.update(schema["properties"])
        then["required"] += schema.get("required", [])
    if any(kind in ROUTED for kind in rule.kinds):
        then["required"].append("match")
    else:
        properties.update(dict.fromkeys(ROUTE_KEYS, False))
    if rule.required_secrets or rule.one_of_secrets:
        then["required"].append("secrets")
    if rule.one_of_secrets:
        properties["secrets"]["anyOf"] = [{"required": [name]} for name in rule.one_of_secrets]
    return {"if": {"properties": {"provider": {"const": rule.provider}}, "required": ["provider"]}, "then": then}
