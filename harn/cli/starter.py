"""
The files of a first trigger, which ``harn init`` writes: manifest, handler, test, and what belongs beside them. Pure.

`WAYS` has the texts that differ, by the way in which events come: as requests of a sender or of an agent, at the times
of a schedule, or from a function that looks for news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harn.model.references import FunctionReference, SecretReference
from harn.secrets.providers import variable_name

if TYPE_CHECKING:
    from harn.connectors.interfaces import IConnectorPlugin

SCHEMA = "harn.schema.json"
"""The file that the manifest names in its first line."""

IGNORED = """\
# State, logs and demo secrets of a server that is started in this folder.
.harn/
# Secrets.
.env
__pycache__/
_trial_temp*/
.pytest_cache/
"""

ONCE = 'dedupe_key = "event.dedupe_key" # an event that is sent again is handled once'


class Way(Struct, frozen=True, kw_only=True):
    """
    The texts of triggers whose events come in one way; for ``$name`` and other names see `Starter.filled`.

    :ivar keys: lines of the manifest before that of the handler.
    :ivar more: lines of the manifest after that of the handler.
    :ivar end: the last lines of the manifest.
    :ivar about: the docstring of the handler's module.
    :ivar imports: the first lines of that module.
    :ivar body: the functions of that module.
    :ivar test: the cases of the test.
    :ivar test_imports: what the cases take from the kit.
    :ivar steps: commands to try it with, and what each is for.
    :ivar secrets: names of secrets that the trigger has beside those that its plugin requires.
    :ivar data: the name and text of a file beside the handler.
    """

    keys: Sequence[str]
    more: Sequence[str] = ()
    end: str = ""
    about: str
    imports: str = ""
    body: str
    test_imports: str
    test: str
    steps: Sequence[tuple[str, str]]
    secrets: Sequence[str] = ()
    data: tuple[str, str] | None = None


HANDLE_REQUEST = '''\
async def $function(event: TriggerEvent, context: Context) -> dict:
    """Handle one event of $provider; what is returned is kept as the result of the delivery."""
    context.log.info("received an event", kind=event.kind)
    # The body of the request, parsed, is event.provider_payload["raw"].
    # An exception fails this attempt, and the next one comes later, as `retry` in harn.toml says.
    return {"kind": event.kind}
'''
TEST_REQUEST = """\
    def test_example(self):
        event = example("$provider")
        run = run_handler("$handler", event)
        self.assertEqual(run.outcome, "success", run)
        self.assertEqual(run.result, {"kind": event.kind})
"""
SEND = (("harn send $name", "in a second terminal: a signed request, as $provider sends it"),)

WEBHOOK = Way(
    keys=('match = { events = [] } # all kinds of events; for example ["issues.*"] takes some',),
    more=(ONCE,),
    about="What happens with events; harn.toml names these functions.",
    body=HANDLE_REQUEST,
    test_imports="from harn.testing.handlers import example, run_handler",
    test=TEST_REQUEST,
    steps=SEND,
)

A2A_PUSH = Way(
    keys=('match = { events = [] } # all kinds of events; for example ["a2a.task.completed"] takes some',),
    more=(ONCE,),
    end="""
# An agent that signs its notifications has public keys, and needs no token above:
# [triggers.a2a_push]
# jwks_url = "https://agent.example/.well-known/jwks.json"
# expected_iss = "https://agent.example"
# expected_aud = "https://harn.example/triggers/$name"
""",
    about="What happens with notifications of the agent; harn.toml names these functions.",
    body=HANDLE_REQUEST,
    test_imports="from harn.testing.handlers import example, run_handler",
    test=TEST_REQUEST,
    steps=SEND,
    secrets=("token",),
)

CRON = Way(
    keys=(
        'schedule = "*/5 * * * *" # minute, hour, day of month, month, day of week; for example "0 9 * * 1-5"',
        'timezone = "UTC" # whose clocks the schedule means, for example "Europe/Berlin"',
        'catchup_mode = "skip" # ticks that are missed while no server runs; "latest" fires the last one, "all" each',
    ),
    about="What happens at each tick of the schedule; harn.toml names these functions.",
    body='''\
async def $function(event: TriggerEvent, context: Context) -> dict:
    """Handle one tick; what is returned is kept as the result of the delivery."""
    # The time of the schedule: earlier than now where no server ran then, or in another attempt.
    due = event.provider_payload["tick_at"]
    context.log.info("received a tick", due=due)
    # An exception fails this attempt, and the next one comes later, as `retry` in harn.toml says.
    return {"due": due}
''',
    test_imports="from harn.testing.handlers import run_handler, tick",
    test="""\
    def test_tick(self):
        event = tick("*/5 * * * *")
        run = run_handler("$handler", event)
        self.assertEqual(run.outcome, "success", run)
        self.assertEqual(run.result, {"due": event.provider_payload["tick_at"]})
""",
    steps=(
        ("harn fire $name", "in a second terminal: fire it now"),
        ("harn schedule", "when it fires next"),
    ),
)

POLL = Way(
    keys=(
        'every = "10s" # how often the function looks for news; or a schedule, as of cron',
        'poll = "$module:$poll"',
    ),
    about="What looks for news, and what happens with each event that it finds; harn.toml names these functions.",
    imports="import json\nfrom pathlib import Path\nfrom typing import Any\n\n",
    body='''\
SOURCE = Path(__file__).with_name("events.jsonl")


def $poll(cursor: Any, context: Context) -> dict:
    """
    Look for news: here the lines that were added to a file. Ask your own system instead.

    `cursor` says from where: it is what was returned as "cursor" the last time, None the first time.
    """
    seen = cursor or 0
    lines = SOURCE.read_text().splitlines()
    events = [{"kind": "line.added", "payload": json.loads(line)} for line in lines[seen:]]
    return {"events": events, "cursor": len(lines)}


async def $function(event: TriggerEvent, context: Context) -> dict:
    """Handle one event; what is returned is kept as the result of the delivery."""
    context.log.info("found an event", kind=event.kind)
    # An exception fails this attempt, and the next one comes later, as `retry` in harn.toml says.
    return {"found": event.provider_payload["raw"]}
''',
    test_imports="from harn.testing.handlers import run_handler\nfrom harn.testing.polls import run_poll",
    test="""\
    def test_first_poll(self):
        found = run_poll("$module:$poll").events[0]
        run = run_handler("$handler", found)
        self.assertEqual(run.outcome, "success", run)
        self.assertEqual(run.result, {"found": {"order": 1}})

    def test_no_news(self):
        cursor = run_poll("$module:$poll").cursor
        self.assertEqual(run_poll("$module:$poll", cursor).events, ())
""",
    steps=(("echo '{\"order\": 2}' >> $data", "in a second terminal: news to be found"),),
    data=("events.jsonl", '{"order": 1}\n'),
)

WAYS: Mapping[str, Way] = {"webhook": WEBHOOK, "cron": CRON, "poll": POLL, "a2a-push": A2A_PUSH}
"""By the kind of the trigger."""


class Starter(Struct, frozen=True):
    """The first trigger: who sends its events, its id, and its handler."""

    plugin: IConnectorPlugin
    name: str
    handler: FunctionReference

    @property
    def kind(self) -> str:
        """Return the kind of the trigger: of `WAYS`."""
        return next(kind for kind in WAYS if kind in self.plugin.kinds)

    @property
    def way(self) -> Way:
        """Return the texts for this kind."""
        return WAYS[self.kind]

    def files(self, schema: str) -> dict[str, str]:
        """Return the text of each file by its path in the folder; ``schema``: that of manifests."""
        files = {
            "harn.toml": self._manifest(),
            SCHEMA: schema,
            self._module_file: self._handler(),
            "test_handlers.py": self._test(),
            ".env.example": self._environment(),
            ".gitignore": IGNORED,
        }
        return files | ({} if self.way.data is None else {self._data_file: self.way.data[1]})

    def steps(self) -> list[tuple[str, str]]:
        """Return the commands to type next, and what each is for."""
        return [
            ("harn dev", "serve; reload at each save; demo values for secrets that are not set"),
            *((self.filled(command), self.filled(about)) for command, about in self.way.steps),
            ("python -m unittest", "test the handler, without a server"),
        ]

    @property
    def _module_file(self) -> str:
        return f"{self.handler.module.replace('.', '/')}.py"

    @property
    def _data_file(self) -> str:
        folder, slash, _ = self._module_file.rpartition("/")
        return folder + slash + ("" if self.way.data is None else self.way.data[0])

    def filled(self, text: str) -> str:
        """Return a text of a `Way` with the names of this trigger."""
        return Template(text).substitute(
            name=self.name,
            provider=self.plugin.provider,
            handler=self.handler,
            module=self.handler.module,
            function=self.handler.function,
            poll="find_events" if self.handler.function != "find_events" else "look_for_events",
            data=self._data_file,
        )

    @property
    def _is_brought(self) -> bool:
        """Return whether the sender brings the secret itself, to a trigger that has none yet."""
        return bool(getattr(self.plugin, "expects_handshake", False))

    def _secrets(self) -> dict[str, SecretReference]:
        """Return the secrets that the trigger names, by their names."""
        plugin = self.plugin
        one_of = plugin.optional_secrets if self._is_brought else tuple(getattr(plugin, "one_of_secrets", ()))
        names = (*plugin.required_secrets, *one_of[:1], *self.way.secrets)
        return {name: SecretReference(plugin.provider, name.replace("_", "-")) for name in names}

    def _manifest(self) -> str:
        lines = [
            f"#:schema ./{SCHEMA}",
            "# The line above lets editors complete and check this file; `harn check` checks it whole.",
            "",
            "[[triggers]]",
            f"id = {_toml(self.name)}",
            f"kind = {_toml(self.kind)}",
            f"provider = {_toml(self.plugin.provider)}",
            *map(self.filled, self.way.keys),
            f"handler = {_toml(str(self.handler))}",
            *self.way.more,
            'retry = { max = 5, backoff = "exponential" }',
        ]
        secrets = self._secrets()
        if secrets:
            if self._is_brought:
                provider = self.plugin.provider
                lines += [
                    f"# {provider} brings the secret itself, with a request that only a trigger without one takes: for",
                    f"# that, take the next line out; harn events connectors.{provider}.webhook.handshake shows it.",
                ]
            named = ", ".join(f"{key} = {_toml(str(reference))}" for key, reference in secrets.items())
            lines.append(f"secrets = {{ {named} }} # values come from the environment: see .env.example")
        settings, table = getattr(self.plugin, "example_settings", None), self.plugin.table
        if settings and table is not None:
            lines += ["", f"[triggers.{table}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
        return "\n".join(lines) + "\n" + self.filled(self.way.end)

    def _handler(self) -> str:
        """Return a module with a handler that says what it gets."""
        way = self.way
        head = f'"""{way.about}"""\n\n{way.imports}from harn.handlers import Context, TriggerEvent\n'
        return f"{head}\n{'' if way.data else chr(10)}{self.filled(way.body)}"

    def _test(self) -> str:
        """Return tests of the handler, for unittest, pytest or trial."""
        return f'''"""Tests of the handlers, without a server: python -m unittest, pytest, or trial."""

import unittest

{self.way.test_imports}


class HandlerTests(unittest.TestCase):
{self.filled(self.way.test)}'''

    def _environment(self) -> str:
        """Return the variables that a server needs, without their values."""
        lines = [
            "# Copy this file to .env, fill in the values, and load them into the shell that starts the server:",
            "#   set -a; . ./.env; set +a; harn serve",
            "# `harn dev` has demo values for those that are not set.",
            "",
        ]
        for key, reference in self._secrets().items():
            lines += [f"# {key} of {self.plugin.provider}", f"{variable_name(reference)}="]
        lines += ["# Keys for the admin API from other machines, separated by commas.", "#HARN_ORCHESTRATOR_API_KEYS="]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Write a text, number, boolean or list of these as TOML, which is JSON for them."""
    return msgspec.json.encode(value).decode()
