"""Validation of one ``[[triggers]]`` table: from raw values to a spec, with every problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harn.manifest.diagnostics import Diagnostics, KeyPath, parse_key, quote, suggest
from harn.manifest.interfaces import PluginRules, ProviderRules, SchemeRules
from harn.manifest.model import GROWING, MATCH, TRIGGER, CircuitSpec, RetrySpec, RolloutSpec, TriggerSpec
from harn.manifest.respond import RespondSpec
from harn.manifest.tables import Table
from harn.manifest.trigger_secrets import check_secrets
from harn.manifest.vocabulary import (
    DEFAULTS,
    KINDS,
    LATER,
    LATER_KINDS,
    LATER_PROVIDERS,
    LATER_SCHEMES,
    ROUTE_KEYS,
    ROUTED,
    default_path,
    fault_of_path,
    instead,
)
from harn.model.references import LOCAL, scheme_of
from harn.wire import canonical_json

_FIELDS, _TABLES = TRIGGER.fields, TRIGGER.tables
_PLAIN = frozenset(_FIELDS) - {"id", "kind", "provider", "path", "handler", "poll", "respond"}
"""Keys whose field says all about them; the others are read together with something else."""
_KNOWN = frozenset((*_FIELDS, *_TABLES, "match", "secrets"))
_PLAIN_RETRY = RetrySpec()


def check_trigger(raw: Any, index: int, rules: PluginRules, diagnostics: Diagnostics) -> TriggerSpec | None:
    """
    Check one trigger.

    :param raw: the parser's value of it.
    :param rules: of the plugins that are installed.
    :return: the spec, usable only if nothing was added to ``diagnostics``; None when it is not a table. Its id and path
        are empty where they are wrong.
    """
    trigger = Table.of(raw, ("triggers", index), diagnostics)
    if trigger is None:
        return None
    take = trigger.take
    trigger_id: str = take("id", _FIELDS["id"], "")
    _require(trigger, "id", 'name the trigger, for example id = "gh"')
    _require(trigger, "handler", 'name a Python function, for example handler = "handlers:on_issue"')
    rule = _check_provider(trigger, rules.providers)
    if trigger.raw.get("allow_from") == []:
        trigger.problem("allow_from", "is empty: no address could send", "remove it to allow any address")
    kind = _check_kind(trigger, rule)
    _refuse_keys(trigger, rule, rules.providers)
    events, path = _check_match(trigger, trigger_id, rule)
    return TriggerSpec(
        id=trigger_id,
        kind=kind,
        provider=rule.provider if rule is not None else "",
        path=path,
        handler=_check_handler(trigger, rules.schemes),
        events=events,
        poll=_check_poll(trigger, kind),
        retry=_check_retry(trigger),
        secrets=check_secrets(trigger, rule),
        circuit=_check_circuit(trigger, rules.schemes),
        settings=_check_settings(trigger, rule),
        respond=_check_respond(trigger),
        rollout=_check_rollout(trigger) if "rollout" in trigger.raw else None,
        **{key: value for key in trigger.raw if key in _PLAIN and (value := take(key, _FIELDS[key])) is not None},
    )


NOT_DEFAULTS = frozenset(("id", "path", "match", "secrets", "poll"))
"""Keys of a trigger that ``[defaults]`` cannot have: they are about one trigger."""
DEFAULT_KEYS = frozenset((*_FIELDS, *_TABLES)) - NOT_DEFAULTS
"""The keys of ``[defaults]``."""


def check_defaults(head: Mapping[str, Any], rules: PluginRules, diagnostics: Diagnostics) -> Mapping[str, Any]:
    """
    Check ``[defaults]``: values of keys that a trigger does not give itself.

    :param head: the manifest's top level.
    :return: the values as the parser made them, without those that are wrong, so that no trigger repeats the problem.
    """
    if "defaults" not in head:
        return {}
    before = len(diagnostics.found)
    defaults = Table.of(head["defaults"], ("defaults",), diagnostics)
    if defaults is None:
        return {}
    raw = defaults.raw
    for key in raw.keys() - DEFAULT_KEYS:
        if key in NOT_DEFAULTS:
            defaults.problem(key, "cannot have a default", "write it in each trigger")
        else:
            defaults.problem(key, "unknown key", suggest(key, DEFAULT_KEYS))
    rule = _check_provider(defaults, rules.providers) if "provider" in raw else None
    if "kind" in raw:
        _check_kind(defaults, rule)
    for key in _FIELDS.keys() & raw.keys() - NOT_DEFAULTS - {"provider", "kind", "handler"}:
        defaults.take(key, _FIELDS[key])
    _check_handler(defaults, rules.schemes)
    _check_retry(defaults)
    _check_circuit(defaults, rules.schemes)
    _check_rollout(defaults)
    wrong = {step for each in diagnostics.found[before:] for step in each.path[1:2]}
    return {key: value for key, value in raw.items() if key not in wrong} if wrong else raw


def with_defaults(raw: Any, defaults: Mapping[str, Any]) -> Any:
    """Return a trigger with the defaults of keys that it does not have; tables key by key."""
    if not defaults or not isinstance(raw, dict):
        return raw
    filled = {**defaults, **raw}
    for key in defaults.keys() & raw.keys():
        if isinstance(defaults[key], dict) and isinstance(raw[key], dict):
            filled[key] = {**defaults[key], **raw[key]}
    return filled


def _require(table: Table, key: str, hint: str) -> None:
    if key not in table.raw:
        table.problem(key, "is missing", hint)


def _check_provider(trigger: Table, rules: Mapping[str, ProviderRules]) -> ProviderRules | None:
    if "provider" not in trigger.raw:
        example = quote("github" if "github" in rules or not rules else min(rules))
        trigger.problem("provider", "is missing", f"say who sends the events, for example provider = {example}")
        return None
    provider: str | None = trigger.take("provider", _FIELDS["provider"])
    if provider is None:
        return None
    if provider not in rules:
        if provider in LATER_PROVIDERS:
            installed = ", ".join(sorted(rules)) or "none"
            trigger.problem("provider", f"{quote(provider)} is not supported yet", f"installed: {installed}")
        else:
            trigger.problem(
                "provider", f"{quote(provider)} is not a provider of this installation", instead(provider, rules)
            )
        return None
    return rules[provider]


def _check_handler(trigger: Table, schemes: Mapping[str, SchemeRules]) -> str:
    """Return the handler in its usual spelling; empty where it is wrong."""
    given = trigger.raw.get("handler")
    scheme = scheme_of(given) if isinstance(given, str) else LOCAL
    if not isinstance(given, str) or scheme == LOCAL or scheme in LATER_SCHEMES:
        read: str = trigger.take("handler", _FIELDS["handler"], "")
        return read
    rule = schemes.get(scheme)
    if rule is None:
        known = ", ".join(rule.example for _, rule in sorted(schemes.items()))
        message = f"{quote(scheme + '://')} is not a destination of this installation"
        trigger.problem("handler", message, f"write for example one of: {known}")
        return ""
    try:
        spelled = rule.plugin.check(given)
        if not isinstance(spelled, str) or scheme_of(spelled) != scheme:
            raise TypeError(f"check must return a handler of the scheme, got {spelled!r}")
        return spelled
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        trigger.problem("handler", message, hint)
    except BaseException as error:
        # The check is a plugin's. Any exception from it, SystemExit included, is a problem of this handler alone.
        said = f"the plugin of destination {quote(scheme)} failed on it: {type(error).__name__}: {error}"
        trigger.problem("handler", said, "report this to the plugin's author")
    return ""


def _check_kind(trigger: Table, rule: ProviderRules | None) -> str:
    kind = trigger.raw.get("kind")
    runnable = tuple(kind for kind in (rule.kinds if rule is not None else KINDS) if kind in KINDS)
    if kind is None:
        trigger.problem("kind", "is missing", f"write kind = {quote(runnable[0] if runnable else KINDS[0])}")
        return ""
    if kind not in runnable and kind in (*LATER_KINDS, *KINDS):
        by = f"by provider {quote(rule.provider)}" if rule is not None else "by this version of harn"
        hint = "known: " + ", ".join(quote(one) for one in runnable) if runnable else "remove the trigger"
        trigger.problem("kind", f"{quote(kind)} is not supported yet {by}", hint)
        return ""
    read: str = trigger.take("kind", _FIELDS["kind"], "")
    return read


def _refuse_keys(trigger: Table, rule: ProviderRules | None, rules: Mapping[str, ProviderRules]) -> None:
    if rule is not None and not _has_route(rule):
        for key in ROUTE_KEYS:
            if key in trigger.raw:
                trigger.problem(key, f"counts only for requests, and {quote(rule.provider)} gets none", "remove it")
    for key in trigger.raw.keys() - _KNOWN:
        if rule is not None and (key == rule.table or key in rule.keys):
            continue
        owner = next((other.provider for other in rules.values() if other.table == key), None)
        owners = [quote(other.provider) for other in rules.values() if key in other.keys]
        if owners and rule is not None:
            trigger.problem(
                key, f"is a key of provider {' or '.join(owners)}, not of {quote(rule.provider)}", "remove it"
            )
            continue
        if owner is not None:
            # The owner of a table cannot be checked while the provider itself is in doubt.
            if rule is not None:
                trigger.problem(
                    key, f"is the table of provider {quote(owner)}, not of {quote(rule.provider)}", "remove it"
                )
        elif key in LATER:
            value, default = trigger.raw[key], DEFAULTS.get(key)
            if type(value) is not type(default) or value != default:
                trigger.problem(key, "is not supported yet", "remove it")
        elif key == "include":
            trigger.problem(key, "is not a key of a trigger", "write it before the first table of the manifest")
        else:
            own = (*rule.keys, *filter(None, (rule.table,))) if rule is not None else ()
            trigger.problem(key, "unknown key", suggest(key, (*_KNOWN, *own)))


def _check_poll(trigger: Table, kind: str) -> str | None:
    """Return the function of a trigger that polls; other kinds have none."""
    if kind == "poll" and "poll" not in trigger.raw:
        trigger.problem("poll", "is missing", 'name a Python function, for example poll = "handlers:new_orders"')
    elif kind and kind != "poll" and "poll" in trigger.raw:
        trigger.problem("poll", 'counts only for kind = "poll"', "remove it")
    read: str | None = trigger.take("poll", _FIELDS["poll"])
    return read


def _has_route(rule: ProviderRules) -> bool:
    """Return whether a provider sends requests; an unusable one of no known kind counts as one that does."""
    return not rule.kinds or any(kind in ROUTED for kind in rule.kinds)


def _check_match(trigger: Table, trigger_id: str, rule: ProviderRules | None) -> tuple[tuple[str, ...], str]:
    """Return the patterns of events, and the path, which may be written in either of two places; empty for none."""
    if rule is not None and not _has_route(rule):
        return _check_fixed_events(trigger, rule), ""
    path: str | None = trigger.take("path", _FIELDS["path"])
    if "match" not in trigger.raw:
        trigger.problem("match", "is missing", 'write for example match = { events = ["issues.*"] }, or events = []')
        return (), path or ""
    match = trigger.table("match")
    events: tuple[str, ...] = ()
    if match is not None:
        match.refuse_unknown(MATCH.fields)
        events = match.take("events", MATCH.fields["events"], ())
        other: str | None = match.take("path", MATCH.fields["path"])
        if other is not None and path is not None and other != path:
            match.problem(
                "path", f"is {quote(other)}, and path is {quote(path)}", "give one of them, or the same twice"
            )
        path = path or other
        if path is None and "path" in match.raw:
            return events, ""
    if path is not None or "path" in trigger.raw:
        return events, path or ""
    path = default_path(trigger_id)
    if trigger_id and fault_of_path(path) is not None:
        trigger.problem("path", f"is missing, and the default {quote(path)} is not usable", 'write path = "/..."')
    return events, path if trigger_id else ""


def _check_fixed_events(trigger: Table, rule: ProviderRules) -> tuple[str, ...]:
    """Return the patterns of events of a provider without a route, whose trigger may leave ``match`` out."""
    match = trigger.table("match")
    if match is None:
        return ()
    match.refuse_unknown(MATCH.fields)
    if "path" in match.raw:
        match.problem("path", f"counts only for requests, and {quote(rule.provider)} gets none", "remove it")
    given: tuple[str, ...] = match.take("events", MATCH.fields["events"], ())
    if not rule.events:
        return given
    # A kind may be written with its provider in front, as in cron.tick.
    events = tuple(dict.fromkeys(each.removeprefix(f"{rule.provider}.") for each in given))
    known = ", ".join(map(quote, rule.events))
    for index, each in enumerate(events):
        if each not in rule.events:
            place: KeyPath = (*match.path, "events", index)
            match.diagnostics.add(place, f"{quote(given[index])} never comes", f"known: {known}; or leave match out")
    return events


def _check_retry(trigger: Table) -> RetrySpec:
    retry = trigger.table("retry")
    if retry is None:
        return _PLAIN_RETRY
    spec = RetrySpec(**retry.values(_TABLES["retry"]))
    given = retry.raw
    if "schedule" in given and "backoff" in given:
        retry.problem("schedule", "is given, and so is backoff", "keep one of them: a schedule names each wait itself")
    elif spec.backoff not in GROWING:
        for key in ("base", "cap"):
            if key in given:
                said = 'counts only with backoff = "exponential" or "linear"'
                retry.problem(key, said, f"remove {key}, or set the backoff")
        if "jitter" in given and spec.backoff == "immediate" and "schedule" not in given:
            retry.problem(
                "jitter", "counts only where there are waits", "remove jitter, or set a backoff or a schedule"
            )
    elif spec.cap < spec.base:
        retry.problem("cap" if "cap" in given else "base", "cap must not be shorter than base", "raise the cap")
    return spec


def _check_circuit(trigger: Table, schemes: Mapping[str, SchemeRules]) -> CircuitSpec | None:
    """Return the circuit: as given, else the usual one where the handler is on another machine, else none."""
    circuit = trigger.table("circuit")
    if circuit is None:
        handler = trigger.raw.get("handler")
        rule = schemes.get(scheme_of(handler)) if isinstance(handler, str) else None
        return CircuitSpec() if rule is not None and rule.is_remote else None
    return CircuitSpec(**circuit.values(_TABLES["circuit"]))


def _check_respond(trigger: Table) -> RespondSpec | None:
    respond: RespondSpec | None = trigger.take("respond", _FIELDS["respond"])
    if "respond_within" in trigger.raw and not (respond is not None and respond.by_handler):
        trigger.problem(
            "respond_within", 'counts only with respond = "handler"', 'write respond = "handler", or remove this'
        )
    return respond


def _check_rollout(trigger: Table) -> RolloutSpec | None:
    rollout = trigger.table("rollout")
    if rollout is None:
        return None
    right = rollout.values(_TABLES["rollout"], {"percent": "say which share begins, for example percent = 10"})
    if right.get("step") and "every" not in rollout.raw:
        path: KeyPath = (*rollout.path, "every")
        rollout.diagnostics.add(
            path, "is missing: step needs it", 'say how long each step lasts, for example every = "1m"'
        )
    if "every" in rollout.raw and "step" not in rollout.raw:
        rollout.problem("every", "counts only with step", "set that, or remove every")
    return RolloutSpec(**{"percent": 0.0, **right})


def _check_settings(trigger: Table, rule: ProviderRules | None) -> dict[str, Any] | None:
    if rule is None or rule.schema is None:
        return None
    if rule.table is None:
        raw = {key: trigger.raw[key] for key in rule.keys if key in trigger.raw}
        table: Table | None = trigger
    else:
        raw = trigger.raw.get(rule.table, {})
        table = Table.of(raw, (*trigger.path, rule.table), trigger.diagnostics)
    if table is None:
        return None
    try:
        value, problems = rule.schema.check(raw)
        for problem in problems:
            table.diagnostics.add((*table.path, *parse_key(problem.key)), problem.message, problem.hint)
        if problems:
            return None
        plain: dict[str, Any] = msgspec.json.decode(canonical_json(value))
        return plain
    except BaseException as error:
        # The schema is a plugin's. Any exception from it, SystemExit included, is a problem of this table alone.
        said = f"the plugin of provider {quote(rule.provider)} failed on it: {type(error).__name__}: {error}"
        table.diagnostics.add(table.path, said, "report this to the plugin's author")
        return None
