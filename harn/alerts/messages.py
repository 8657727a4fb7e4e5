"""The text of an alert's message, with commands for the operator, for a chat, a mail or a program. Pure functions."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType

from harn.alerts.model import FIRING, RESOLVED, TEST, Named, Notice, Rule
from harn.clocks import rfc3339
from harn.manifest.alerts import CIRCUIT_OPEN, DEAD_LETTER, LATE, RELOAD_FAILED, SILENT
from harn.model.display import visible
from harn.model.quantities import format_duration

COMMAND = "harn orchestrator"
LONGEST_REASON = 500
"""The longest reason in a message (characters)."""


class AlertOrigin(Struct, frozen=True, kw_only=True):
    """
    The server that sends a message.

    :ivar host: the name of the machine.
    :ivar package: the package of the manifest.
    :ivar generation: the number of the live generation.
    :ivar console_url: the URL of the console, for example ``https://harn.example.org/console``; None if it is not set.
    """

    host: str
    package: str
    generation: int
    console_url: str | None = None


class NamedTrigger(Struct, frozen=True, kw_only=True):
    """A trigger in a document: how often it happened there, or, for what lasts, since when."""

    trigger_id: str
    count: int | UnsetType = UNSET
    since: str | UnsetType = UNSET


class AlertDocument(Struct, frozen=True, kw_only=True):
    """The body that a webhook receives, as JSON. Times are RFC 3339; ``docs/howto/alerts.md`` explains each field."""

    type: str
    timestamp: str
    id: str
    alert: str
    status: str
    on: str
    trigger_id: str | None
    count: int
    since: str
    began_at: str
    ended_at: str | None
    lasted_seconds: float | None
    reason: str | None
    event_id: str | None
    triggers: tuple[NamedTrigger, ...]
    threshold: int | None
    within: str
    every: str
    commands: tuple[str, ...]
    console: str | None
    host: str
    package: str
    generation: int
    text: str


class AlertMessage(Struct, frozen=True, kw_only=True):
    """
    A message in words.

    :ivar subject: one line.
    :ivar lines: the further lines, for people.
    :ivar document: the whole message, for programs.
    """

    id: str
    subject: str
    lines: tuple[str, ...]
    document: AlertDocument

    @property
    def text(self) -> str:
        """Return the subject and the lines as one text."""
        return "\n".join((self.subject, *self.lines))


def write_message(rule: Rule, notice: Notice, origin: AlertOrigin) -> AlertMessage:
    """Return the message for a notice."""
    headline = _headline(rule, notice)
    commands = () if notice.status == RESOLVED else _commands(rule, notice)
    page = None if origin.console_url is None else origin.console_url.rstrip("/") + _page(rule, notice)
    lines = tuple(visible(line) for line in _lines(notice, commands, page, origin))
    subject = visible(headline)
    return AlertMessage(
        id=notice.id,
        subject=subject,
        lines=lines,
        document=_document(rule, notice, origin, commands, page, "\n".join((subject, *lines))),
    )


def _headline(rule: Rule, notice: Notice) -> str:
    who = rule.trigger_id or _one_trigger(notice) or "any trigger"
    if notice.status == TEST:
        return f"harn test: {rule.name} reaches you here; nothing is wrong"
    if notice.status == RESOLVED:
        lasted = lasting(notice.began_at, notice.ended_at or notice.made_at)
        return f"harn all-clear: {_subject_of(rule, who)}: {_ended(rule)}; it lasted {lasted}{_in_all(rule, notice)}"
    return f"harn alert: {_subject_of(rule, who)}: {_began(rule, notice)}"


def _subject_of(rule: Rule, who: str) -> str:
    return "reload" if rule.spec.on == RELOAD_FAILED else who


def _one_trigger(notice: Notice) -> str | None:
    """Return the trigger that the message is about; None if there are several or none."""
    return notice.named[0].trigger_id if len(notice.named) == 1 and not notice.others else None


def _began(rule: Rule, notice: Notice) -> str:
    since, within = rfc3339(notice.since), format_duration(rule.spec.within)
    on, count = rule.spec.on, notice.count
    if on == DEAD_LETTER:
        return f"{counted(count, 'dead letter')} since {since}"
    if on == CIRCUIT_OPEN:
        return f"the circuit opened {counted(count, 'time')} since {since}, and is open"
    if on == RELOAD_FAILED:
        began = rfc3339(notice.began_at)
        return f"{counted(count, 'reload')} failed since {since}; an older generation serves since {began}"
    many = f"{count} triggers have" if count > 1 else "it has"
    if on == SILENT:
        return f"{many} accepted nothing for {within} or longer, since {rfc3339(notice.began_at)}"
    return f"{many} deliveries that have been ready for {within} or longer, since {rfc3339(notice.began_at)}"


def _ended(rule: Rule) -> str:
    return {
        DEAD_LETTER: f"no new dead letter for {format_duration(rule.spec.within)}, or none is left",
        CIRCUIT_OPEN: "the circuit is closed",
        RELOAD_FAILED: "the last reload succeeded",
        SILENT: "events are accepted again",
        LATE: "nothing is late any more",
    }[rule.spec.on]


def _in_all(rule: Rule, notice: Notice) -> str:
    nouns = {DEAD_LETTER: "dead letter", CIRCUIT_OPEN: "opening", RELOAD_FAILED: "failed reload"}
    noun = nouns.get(rule.spec.on)
    return f", with {counted(notice.count, noun)}" if noun is not None and notice.count else ""


def _commands(rule: Rule, notice: Notice) -> tuple[str, ...]:
    """Return the commands that show the operator more."""
    trigger_id = rule.trigger_id or _one_trigger(notice)
    of_trigger = "" if trigger_id is None else f" --trigger {trigger_id}"
    if notice.status == TEST:
        return (f"{COMMAND} alerts",)
    if rule.spec.on == DEAD_LETTER:
        example = () if notice.event_id is None else (f"{COMMAND} delivery {notice.event_id}",)
        return (*example, f"{COMMAND} dlq{of_trigger}")
    return {
        CIRCUIT_OPEN: (f"{COMMAND} circuits", f"{COMMAND} deliveries{of_trigger}"),
        RELOAD_FAILED: (f"{COMMAND} check", f"{COMMAND} plan"),
        SILENT: (f"{COMMAND} inspect", f"{COMMAND} deliveries{of_trigger} --limit 5"),
        LATE: (f"{COMMAND} deliveries{of_trigger} --state ready", f"{COMMAND} inspect"),
    }[rule.spec.on]


def _page(rule: Rule, notice: Notice) -> str:
    """Return the path of the console's page about the alert, relative to the console's URL."""
    trigger_id = rule.trigger_id or _one_trigger(notice)
    if rule.spec.on == DEAD_LETTER and notice.status != TEST:
        return "/dead-letters" if notice.event_id is None else f"/deliveries/{quote(notice.event_id, safe='')}"
    if rule.spec.on == RELOAD_FAILED:
        return "/reloads"
    return "/triggers" if trigger_id is None else f"/triggers/{quote(trigger_id, safe='')}"


def _lines(notice: Notice, commands: tuple[str, ...], page: str | None, origin: AlertOrigin) -> list[str]:
    lines = []
    if notice.reason and notice.status == FIRING:
        lines.append(f"Reason: {notice.reason[:LONGEST_REASON]}")
    if len(notice.named) > 1 or notice.others:
        named = [
            f"{each.trigger_id} ({each.count if each.since is None else 'since ' + rfc3339(each.since)})"
            for each in notice.named
        ]
        lines.append("Triggers: " + ", ".join(named) + (", and others" if notice.others else ""))
    if notice.event_id is not None and notice.status == FIRING:
        lines.append(f"For example: {notice.event_id}")
    lines += [f"Look closer: {command}" for command in commands]
    if page is not None:
        lines.append(f"Console: {page}")
    lines.append(f"Server: {origin.host} ({origin.package}), generation {origin.generation}")
    return lines


def _document(
    rule: Rule, notice: Notice, origin: AlertOrigin, commands: tuple[str, ...], page: str | None, text: str
) -> AlertDocument:
    spec = rule.spec
    ended = notice.ended_at
    return AlertDocument(
        type=f"alert.{notice.status}",
        timestamp=rfc3339(notice.made_at),
        id=notice.id,
        alert=rule.name,
        status=notice.status,
        on=spec.on,
        trigger_id=rule.trigger_id,
        count=notice.count,
        since=rfc3339(notice.since),
        began_at=rfc3339(notice.began_at),
        ended_at=None if ended is None else rfc3339(ended),
        lasted_seconds=None if ended is None else round(ended - notice.began_at, 3),
        reason=notice.reason[:LONGEST_REASON] or None,
        event_id=notice.event_id,
        triggers=tuple(_named_trigger(each) for each in notice.named),
        threshold=spec.threshold if rule.is_counted else None,
        within=format_duration(spec.within),
        every=format_duration(spec.every),
        commands=commands,
        console=page,
        host=origin.host,
        package=origin.package,
        generation=origin.generation,
        text=text,
    )


def _named_trigger(named: Named) -> NamedTrigger:
    if named.since is None:
        return NamedTrigger(trigger_id=named.trigger_id, count=named.count)
    return NamedTrigger(trigger_id=named.trigger_id, since=rfc3339(named.since))


def counted(number: int, noun: str) -> str:
    """Write ``1 dead letter`` or ``2 dead letters``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def lasting(began_at: float, ended_at: float) -> str:
    """Write how long something lasted, in its two largest units: ``2h 5m``."""
    seconds = max(0, round(ended_at - began_at))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2])
