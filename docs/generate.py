"""
Write the generated parts of docs/reference: the parts that are read from the code.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; the words around it are written by hand.
``python docs/generate.py`` renews every part; a test holds that there is nothing to renew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from harn.alerts.feature import add_alert_gauges
from harn.circuits.feature import add_circuit_gauge
from harn.cli.commands import ORCHESTRATOR
from harn.cli.main import cli
from harn.cli.operations import OPERATIONS
from harn.connectors.catalog import Catalog
from harn.connectors.interfaces import IConnectorPlugin
from harn.connectors.receivers import ConfiguredProvider
from harn.dispatch.feature import add_gauges as add_dispatch_gauges
from harn.listener.feature import add_gauges as add_edge_gauges
from harn.manifest.json_schema import manifest_json_schema
from harn.manifest.model import RetrySpec
from harn.manifest.vocabulary import DEFAULTS, LATER, LATER_KINDS, LATER_PROVIDERS
from harn.model.quantities import format_duration
from harn.observability.exposition import Scrape
from harn.observability.metrics import Metrics
from harn.operations.http import EVERYWHERE, OF_BODIES, problems_of, read_object, write_request
from harn.operations.model import Operation
from harn.operations.parameters import Parameter, schema_of_written
from harn.options import OPTIONS
from harn.plugins import builtin
from harn.reload.feature import add_drain_gauge
from harn.schedules.feature import add_gauges as add_schedule_gauges
from harn.servers.feature import add_gauges as add_server_gauges
from harn.statistics.gauges import add_disk_gauges
from harn.statistics.gauges import add_gauges as add_trigger_gauges
from harn.traces.feature import add_counters as add_otlp_counters
from harn.triggers.registry import add_version_gauges

REFERENCE = Path(__file__).parent / "reference"
PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Schema = Mapping[str, Any]


def main() -> None:
    """Renew the pages."""
    for page in sorted(REFERENCE.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        renewed = renew(text)
        if renewed != text:
            page.write_text(renewed, encoding="utf-8")
            click.echo(f"renewed {page.relative_to(REFERENCE.parent.parent)}")


def renew(page: str) -> str:
    """
    Return a page with every generated part renewed.

    :raises KeyError: it has a part without a generator.
    """
    return PART.sub(lambda found: found[1] + "\n" + PARTS[found["name"]]() + "\n" + found[3], page)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# The manifest


def manifest_schema() -> Schema:
    """Return the JSON schema of this installation's manifests."""
    return manifest_json_schema(Catalog.of(OURS.values()).providers)


OURS = {
    plugin.provider: plugin
    for plugin in (getattr(builtin, name) for name in builtin.__all__)
    if IConnectorPlugin.providedBy(plugin)
}
"""Providers that come with harn; others that are installed here are not documented."""


def keys_of(schema: Schema, defaults: Mapping[str, str] | None = None) -> str:
    """Write the keys of one table, those that are other spellings or not supported yet left out."""
    required = schema.get("required", ())
    rows = []
    for key, value in schema["properties"].items():
        if not isinstance(value, Mapping) or value.get("deprecated") or "const" in value:
            continue
        default = (defaults or {}).get(key) or (shown(value["default"]) if value.get("default") is not None else "")
        rows.append((f"`{key}`", type_of(value), "required" if key in required else default, meaning_of(value)))
    return table(("key", "value", "default", "meaning"), rows)


def shown(value: Any) -> str:
    """Write a value as TOML would."""
    return f"`{msgspec.json.encode(value).decode()}`"


def meaning_of(schema: Schema) -> str:
    """Return the description, without a default that has a column of its own."""
    return re.sub(r'; "?[^";]+"? by default\.$', ".", schema.get("description", ""))


def type_of(schema: Schema) -> str:
    """Describe in a few words the values of a field."""
    if "enum" in schema:
        return ", ".join(shown(each) for each in schema["enum"])
    if "anyOf" in schema:
        kinds = dict.fromkeys(type_of(each) for each in schema["anyOf"] if each.get("type") != "null")
        return " or ".join(kinds)
    kind = schema.get("type")
    if isinstance(kind, list):
        return span_of_share(schema)
    if kind in ("integer", "number"):
        return span_of("whole number" if kind == "integer" else "number", schema)
    if kind == "string":
        return "duration" if "(ms|s|m|h|d|w)" in schema.get("pattern", "") else "text"
    if kind == "array":
        return f"array of {type_of(schema.get('items', {'type': 'string'}))}s"
    return {"boolean": "`true`, `false`", "object": "table"}.get(str(kind), str(kind))


def span_of(kind: str, schema: Schema) -> str:
    """Describe the bounds of a number."""
    low, high = schema.get("minimum"), schema.get("maximum", 2**53)
    above = schema.get("exclusiveMinimum")
    if above is not None:
        return f"{kind} over {above}"
    return f"{kind}, {low} or more" if high >= 2**53 else f"{kind}, {low} to {high}"


def span_of_share(schema: Schema) -> str:
    """Describe the bounds of a share."""
    low = "over 0%" if "exclusiveMinimum" in schema else "0%"
    return f"share, {low} to {'under ' if 'exclusiveMaximum' in schema else ''}100%"


def orchestrator_part() -> str:
    """Describe ``[orchestrator]`` and its tables."""
    schema = manifest_schema()["properties"]["orchestrator"]
    plain = {key: value for key, value in schema["properties"].items() if value.get("type") != "object"}
    sections = [keys_of({"properties": plain})]
    for key, inner in schema["properties"].items():
        if inner.get("type") == "object":
            sections.append(f"### `[orchestrator.{key}]`\n\n{inner['description']}\n\n{keys_of(inner)}")
    return "\n".join(sections)


def trigger_schema() -> Schema:
    """Return the schema of one trigger."""
    schema: Schema = manifest_schema()["properties"]["triggers"]["items"]
    return schema


def trigger_part() -> str:
    """Describe the keys of ``[[triggers]]``."""
    needed = dict.fromkeys(("kind", "provider", "handler"), "required")
    return keys_of(trigger_schema(), {"path": "`/triggers/<id>`", "match": "required for requests", **needed})


def match_part() -> str:
    """Describe ``match``."""
    return keys_of(trigger_schema()["properties"]["match"])


def retry_part() -> str:
    """Describe ``[triggers.retry]``."""
    spec = RetrySpec()
    defaults = {name: shown(getattr(spec, name)) for name in RetrySpec.__struct_fields__}
    defaults |= {name: f'`"{format_duration(getattr(spec, name))}"`' for name in ("base", "cap")}
    return keys_of(trigger_schema()["properties"]["retry"], defaults)


def circuit_part() -> str:
    """Describe ``[triggers.circuit]``."""
    return keys_of(trigger_schema()["properties"]["circuit"])


def rollout_part() -> str:
    """Describe ``[triggers.rollout]``."""
    return keys_of(trigger_schema()["properties"]["rollout"])


def alerts_part() -> str:
    """Describe ``[[triggers.alerts]]`` and ``[[orchestrator.alerts]]``."""
    return keys_of(trigger_schema()["properties"]["alerts"]["items"])


def provider_part() -> str:
    """Describe the keys that each provider adds to a trigger."""
    return "\n".join(_of_provider(each["if"], each["then"]) for each in trigger_schema()["allOf"])


def _of_provider(condition: Schema, then: Schema) -> str:
    provider = condition["properties"]["provider"]["const"]
    properties = then["properties"]
    kinds = " or ".join(f"`{kind}`" for kind in properties["kind"]["enum"])
    secrets = ", ".join(
        f"`{name}` (required)" if name in properties["secrets"]["required"] else f"`{name}`"
        for name in properties["secrets"]["propertyNames"]["enum"]
    )
    lines = [f"### `{provider}`\n", f"Kind: {kinds}. Secrets: {secrets or 'none'}.\n"]
    for key, value in properties.items():
        if isinstance(value, Mapping) and value.get("properties"):
            lines.append(f"`[triggers.{key}]`:\n\n{keys_of(value)}")
    own = {key: properties[key] for key in getattr(OURS.get(provider), "keys", ())}
    if own:
        lines.append(f"Keys of `[[triggers]]`:\n\n{keys_of({'properties': own, 'required': then['required']})}")
    return "\n".join(lines)


def connectors_part() -> str:
    """Write a table of the providers: secrets, table, how a request is verified, and its window."""
    rows = []
    for provider, plugin in sorted(OURS.items()):
        declared: Any = plugin
        if isinstance(plugin, ConfiguredProvider):
            declared = plugin.declared(plugin.example_settings)
        secrets = [f"`{name}`" for name in plugin.required_secrets]
        secrets += [" or ".join(f"`{name}`" for name in plugin.optional_secrets)] if plugin.optional_secrets else []
        scheme = getattr(declared, "scheme", None)
        header = getattr(scheme, "header", None)
        given = VERIFIED_BY.get(provider) or f"`{header}`"
        timed = bool(getattr(scheme, "timestamp_header", None) or getattr(scheme, "entries", None))
        timed = timed or getattr(declared, "sent_at", None) is not None or provider == "standard"
        window = f"{declared.tolerance} s" if timed else WINDOWS.get(provider, "none: no time is signed")
        table_name = f"`[triggers.{plugin.table}]`" if plugin.table else ""
        rows.append((f"`{provider}`", ", ".join(secrets) or "none", given, window, table_name))
    return table(("provider", "secrets", "verified", "window", "table"), rows)


VERIFIED_BY = {
    "a2a-push": "`Authorization` with a JSON Web Token, the agreed token, or harn's own credentials",
    "cron": "nothing is received",
    "poll": "nothing is received",
    "basic": "`Authorization`: user and password",
    "cloudevents": "`Authorization`, or as `standard`",
    "gitlab": "`X-Gitlab-Token`, or as `standard`",
    "hmac": "the header that the table names",
    "token": "the header or the parameter of the URL that the table names",
    "standard": "`webhook-id`, `webhook-timestamp`, `webhook-signature`, or `svix-`",
    "twilio": "`X-Twilio-Signature`, over the URL and a form, or the digest of another body",
    "webhook": "by `signature_scheme`",
}
WINDOWS = {
    "a2a-push": "`exp`, a day at most",
    "cron": "",
    "poll": "",
    "hmac": "`timestamp_tolerance_secs`, where a time is signed",
    "webhook": "`timestamp_tolerance_secs`, where a time is signed",
    "cloudevents": "300 s where it is signed",
    "gitlab": "300 s where it is signed",
}


def later_part() -> str:
    """List the names that are recognized and not supported yet."""
    fixed = ", ".join(f"`{key} = {msgspec.json.encode(value).decode()}`" for key, value in sorted(DEFAULTS.items()))
    keys = ", ".join(f"`{key}`" for key in sorted(LATER - set(DEFAULTS)))
    kinds = ", ".join(f"`{kind}`" for kind in LATER_KINDS)
    providers = ", ".join(f"`{provider}`" for provider in sorted(set(LATER_PROVIDERS) - set(OURS)))
    return (
        f"- kinds: {kinds}\n- providers: {providers}\n- keys of a trigger: {keys}\n"
        f"- keys of a trigger that may be given with the value that holds anyway, and no other: {fixed}\n"
    )


# The command line


PLACE = ("config", "state_dir")
SERVER = ("admin_url", "cacert", "insecure", "timeout")


def commands_part() -> str:
    """Describe every command, without the options that several have."""
    return "\n".join(_of_command(words, command) for words, command in commands("harn", cli))


def commands(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Return every command that does something, with the words that call it; short forms are left out."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command, info_name=words)
    for name in command.list_commands(context):
        if command is cli and name in ORCHESTRATOR:
            continue
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(f"{words} {name}", inner)


def _of_command(words: str, command: click.Command) -> str:
    named = ((each.human_readable_name, each.required) for each in command.params if isinstance(each, click.Argument))
    arguments = "".join(f" {name}" if required or name.startswith("[") else f" [{name}]" for name, required in named)
    about = " ".join((command.help or "").split())
    options = {str(each.name): each for each in command.params if isinstance(each, click.Option)}
    told = [*(("place",) if is_common(options, PLACE) else ()), *(("server",) if is_common(options, SERVER) else ())]
    also = f" Takes the options of {' and '.join(told)}." if told else ""
    common = (*PLACE, *SERVER) if told else ()
    rows = [_of_option(each) for name, each in options.items() if name not in common]
    return f"### `{words}{arguments}`\n\n{about}{also}\n" + (f"\n{table(HEADS, rows)}" if rows else "")


HEADS = ("option", "meaning")


def is_common(options: Mapping[str, click.Option], names: Sequence[str]) -> bool:
    """Return whether a command has these options, those of clients of a server; ``serve`` has all of its own."""
    return all(name in options for name in names) and "bind" not in options


def common_part(names: Sequence[str]) -> str:
    """Describe options that several commands have."""
    params = {each.name: each for _, command in commands("harn", cli) for each in command.params}
    return table(HEADS, [_of_option(each) for name in names if isinstance(each := params[name], click.Option)])


def _of_option(option: click.Option) -> tuple[str, str]:
    value = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
    meaning = option.help or ""
    if option.required:
        meaning += " Required."
    if option.show_default:
        meaning += f" (default: {option.default:g})" if isinstance(option.default, float) else f" ({option.default})"
    return ", ".join(f"`{name}{value}`" for name in option.opts), meaning


def environment_part() -> str:
    """Describe the variables that stand for options of ``serve``."""
    return table(("variable", "stands for"), [(f"`{each.env}`", f"`--{each.name}`") for each in OPTIONS])


# The metrics


def metrics_part() -> str:
    """Describe every family of metrics."""
    metrics = Metrics()
    unread: Any = None  # gauges are named here, and not read
    add_version_gauges(metrics, unread)
    add_dispatch_gauges(metrics, unread)
    add_server_gauges(metrics, unread)
    add_drain_gauge(metrics, unread)
    add_edge_gauges(metrics, unread, unread)
    add_trigger_gauges(metrics, unread, unread)
    add_disk_gauges(metrics, unread)
    add_alert_gauges(metrics, unread)
    add_schedule_gauges(metrics, unread, unread)
    add_circuit_gauge(metrics, unread)
    for what in ("spans", "metrics"):
        add_otlp_counters(metrics, what, unread)
    rows = []
    for family in Scrape(Metrics()).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels: Sequence[str] = family._labelnames  # type: ignore[attr-defined]  # a family says its labels nowhere else
        rows.append((name, family.type, labels, family.documentation))
    rows += [
        (each.name + "_total", "counter", each.labelnames, each.documentation)
        if each.only_rises
        else (each.name, "gauge", each.labelnames, each.documentation)
        for each in metrics.gauges.values()
    ]
    return table(
        ("metric", "type", "labels", "meaning"),
        [
            (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning)
            for name, kind, labels, meaning in sorted(rows)
        ],
    )


# The admin API


def operations_part() -> str:
    """Describe every operation: its route, role, parameters and answer."""
    first: dict[type, str] = {}
    for each in OPERATIONS:
        first.setdefault(each.result, each.name)
    return "\n".join(_of_operation(each, first[each.result]) for each in OPERATIONS)


def _of_operation(operation: Operation[Any, Any, Any], described_at: str) -> str:
    """Describe an operation; its answer only if no operation before it, ``described_at``, has the same."""
    route = f"`{operation.route.method} /admin{operation.route.path}`"
    told = [f"role `{operation.role.value}`", *(["audited"] if operation.audit is not None else [])]
    lines = [f"### `{operation.name}`\n", f"{route}: {operation.summary} ({', '.join(told)})\n"]
    if operation.fields:
        lines.append(table(("parameter", "in", "value", "meaning"), map(_of_parameter, operation.fields)))
    if operation.example:
        lines.append(f"For example {_of_example(operation)}.\n")
    others = {**problems_of(operation), **operation.also}
    rows = [(str(status), others[status]) for status in sorted(others.keys() - _OF_ALL)]
    if rows:
        lines.append(table(("status", "meaning"), rows))
    if described_at != operation.name:
        lines.append(f"The answer is that of `{described_at}`.\n")
    else:
        lines.append(table(("answer", "value", "meaning"), _of_result(operation.result)))
    return "\n".join(lines)


_OF_ALL = frozenset((*EVERYWHERE, *OF_BODIES, 403, 414))
"""Statuses that the page describes once."""


def _of_example(operation: Operation[Any, Any, Any]) -> str:
    """Write the request of the example of an operation."""
    request = write_request(operation, read_object(operation, operation.example))
    body = f" with `{json.dumps(dict(request.body))}`" if request.body else ""
    return f"`{request.method} {request.target}`{body}"


def _of_parameter(parameter: Parameter) -> tuple[str, str, str, str]:
    value = parameter.expected
    if parameter.is_required:
        value += "; required"
    elif parameter.default not in (None, False):
        value += f"; {parameter.default} by default"
    return f"`{parameter.key}`", parameter.place.value, value, parameter.description


def _of_result(result: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    _, schemas = msgspec.json.schema_components([result], schema_hook=schema_of_written)
    yield from _members(schemas[result.__name__], schemas, "")


def _members(schema: Schema, schemas: Schema, before: str) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each member of an object, and of the objects within it."""
    for name, value in schema["properties"].items():
        path = f"{before}{name}"
        inner, suffix = _object_in(value, schemas)
        meaning = value.get("description", inner.get("description", ""))
        yield f"`{path}`", _kind_of(value, schemas), _in_one_line(meaning)
        if inner:
            yield from _members(inner, schemas, f"{path}{suffix}.")


def _in_one_line(docstring: str) -> str:
    """Return a docstring as a cell of a table can have it, without its fields."""
    return " ".join(re.split(r"\n\s*:", docstring)[0].split()).replace("``", "`")


def _object_in(schema: Schema, schemas: Schema) -> tuple[Schema, str]:
    """Return the object that a value is or contains, and the suffix of its path; an empty one where there is none."""
    for each in schema.get("anyOf", (schema,)):
        if "$ref" in each:
            return schemas[each["$ref"].rpartition("/")[2]], ""
        for key, suffix in (("items", "[]"), ("additionalProperties", ".NAME")):
            if isinstance(each.get(key), Mapping):
                inner, more = _object_in(each[key], schemas)
                if inner:
                    return inner, suffix + more
    return {}, ""


def _kind_of(schema: Schema, schemas: Schema) -> str:
    """Describe the type of a value in a word or two."""
    kinds = []
    for each in schema.get("anyOf", (schema,)):
        kind = "object" if "$ref" in each else each.get("type", "any JSON value")
        if kind == "array" and each.get("items"):
            kind = f"array of {_kind_of(each['items'], schemas)}s"
        kinds.append({"string": "text", "boolean": "`true`, `false`", "null": "`null`"}.get(kind, kind))
    return " or ".join(dict.fromkeys(kinds))


PARTS: Mapping[str, Callable[[], str]] = {
    "orchestrator": orchestrator_part,
    "trigger": trigger_part,
    "match": match_part,
    "retry": retry_part,
    "circuit": circuit_part,
    "rollout": rollout_part,
    "alerts": alerts_part,
    "providers": provider_part,
    "connectors": connectors_part,
    "later": later_part,
    "commands": commands_part,
    "place": lambda: common_part(PLACE),
    "server": lambda: common_part(SERVER),
    "environment": environment_part,
    "metrics": metrics_part,
    "operations": operations_part,
}


if __name__ == "__main__":
    main()
