"""Schemas: the one that checks a provider's table, and the JSON schema of a manifest."""

from __future__ import annotations

import operator
import re
from typing import Any

import msgspec
import tomli
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.manifest.interfaces import ISettingsSchema, SettingProblem
from harn.manifest.json_schema import manifest_json_schema
from harn.manifest.tables import StructSchema
from harn.testing.manifests import manifest_text, trigger_text
from tests.manifest.rules import PROVIDERS, WebhookTable, complaints

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}

_OUTSIDE: dict[str, Any] = {
    "minimum": operator.lt,
    "maximum": operator.gt,
    "exclusiveMinimum": operator.le,
    "exclusiveMaximum": operator.ge,
}


def faults(schema: Any, value: Any, at: str = "$") -> list[str]:
    """Apply the part of JSON schema that harn's uses; a keyword that is unknown here is a fault, too."""
    if isinstance(schema, bool):
        return [] if schema else [f"{at}: not allowed"]
    found: list[str] = []
    for keyword, rule in schema.items():
        if keyword == "type":
            kinds = [rule] if isinstance(rule, str) else rule
            wrong = not any(isinstance(value, _TYPES[kind]) for kind in kinds)
            wrong = wrong or (isinstance(value, bool) and "boolean" not in kinds)
        elif keyword == "enum":
            wrong = value not in rule
        elif keyword == "const":
            wrong = type(value) is not type(rule) or value != rule
        elif keyword in _OUTSIDE:
            wrong = isinstance(value, int | float) and _OUTSIDE[keyword](value, rule)
        elif keyword == "minLength":
            wrong = isinstance(value, str) and len(value) < rule
        elif keyword == "minItems":
            wrong = isinstance(value, list) and len(value) < rule
        elif keyword == "maxItems":
            wrong = isinstance(value, list) and len(value) > rule
        elif keyword == "pattern":
            wrong = isinstance(value, str) and re.search(rule, value) is None
        elif keyword == "required":
            wrong = isinstance(value, dict) and not set(rule) <= set(value)
        elif keyword == "anyOf":
            wrong = all(faults(one, value, at) for one in rule)
        else:
            found += _inner(keyword, rule, schema, value, at)
            continue
        if wrong:
            found.append(f"{at}: {keyword} {rule!r}")
    return found


def _inner(keyword: str, rule: Any, schema: Any, value: Any, at: str) -> list[str]:
    found: list[str] = []
    if keyword == "properties" and isinstance(value, dict):
        for key in rule.keys() & value.keys():
            found += faults(rule[key], value[key], f"{at}.{key}")
    elif keyword == "additionalProperties" and isinstance(value, dict):
        for key in value.keys() - schema.get("properties", {}).keys():
            found += faults(rule, value[key], f"{at}.{key}")
    elif keyword == "propertyNames" and isinstance(value, dict):
        for key in value:
            found += faults(rule, key, f"{at}.{key}")
    elif keyword == "items" and isinstance(value, list):
        for index, item in enumerate(value):
            found += faults(rule, item, f"{at}[{index}]")
    elif keyword == "allOf":
        for one in rule:
            found += faults(one, value, at)
    elif keyword == "if" and not faults(rule, value, at):
        found += faults(schema["then"], value, at)
    elif keyword not in (
        *("properties", "additionalProperties", "propertyNames", "items", "if", "then", "title", "description"),
        *("default", "deprecated", "$schema"),
    ):
        found.append(f"{at}: keyword {keyword} is not known here")
    return found


class Puzzle(msgspec.Struct, frozen=True):
    """Settings with a field that has the name of a method."""

    problems: int = 0


class StructSchemaTests(SynchronousTestCase):
    """`StructSchema`."""

    def test_interface(self) -> None:
        """It is a settings schema."""
        self.assertTrue(verifyObject(ISettingsSchema, StructSchema(WebhookTable)))

    def test_right(self) -> None:
        """A right table becomes the struct, defaults filled in."""
        self.assertEqual(StructSchema(WebhookTable).check({}), (WebhookTable(), []))
        settings, problems = StructSchema(WebhookTable).check({"timestamp_tolerance_secs": 5, "tags": ["a"]})
        self.assertEqual((settings, problems), (WebhookTable(timestamp_tolerance_secs=5, tags=["a"]), []))

    def test_field_named_problems(self) -> None:
        """A setting may be called ``problems``: only a method of that name checks the others."""
        self.assertEqual(StructSchema(Puzzle).check({"problems": 3}), (Puzzle(problems=3), []))

    def test_every_problem(self) -> None:
        """All that is wrong is said at once, in the manifest's words."""
        table = {"timestamp_tolerance_secs": -1, "tags": ["a", 2], "signature_scheme": 5, "source": True, "sorce": 1}
        settings, problems = StructSchema(WebhookTable).check(table)
        self.assertIsNone(settings)
        self.assertEqual(
            {problem.key: (problem.message, problem.hint) for problem in problems},
            {
                "sorce": ("unknown key", 'did you mean "source"?'),
                "signature_scheme": (
                    "must be a string, got an integer",
                    'known: "github", "slack", "standard", "stripe"',
                ),
                "timestamp_tolerance_secs": ("must be an integer >= 0", ""),
                "source": ("must be a string, got a boolean", ""),
                "tags[1]": ("must be a string", ""),
            },
        )

    def test_required_and_unusual(self) -> None:
        """A required key is asked for; unions and words that nothing resembles are put in words, too."""

        class Table(msgspec.Struct, frozen=True, kw_only=True):
            host: str
            port: int | str = 1
            limits: dict[str, int] = {}

        schema = StructSchema(Table)
        _, problems = schema.check({"port": 1.5, "limits": {"a": "x"}})
        self.assertEqual(
            [(problem.key, problem.message) for problem in problems],
            [
                ("host", "is missing"),
                ("port", "must be an integer or a string, got a float"),
                ("limits", "must be an integer"),
            ],
        )
        _, problems = StructSchema(WebhookTable).check({"signature_scheme": "zzz"})
        self.assertEqual(
            (problems[0].message, problems[0].hint),
            ('"zzz" is not known', 'known: "github", "slack", "standard", "stripe"'),
        )

    def test_further_check(self) -> None:
        """Rules over several keys run when each is right by itself."""
        problem = SettingProblem(key="source", message="needs tags")

        class Table(WebhookTable, frozen=True):
            def problems(self) -> list[SettingProblem]:
                return [problem] if self.source and not self.tags else []

        schema = StructSchema(Table)
        self.assertEqual(schema.check({"source": "x"}), (None, [problem]))
        self.assertEqual(schema.check({"source": "x", "tags": ["a"]})[1], [])
        self.assertEqual([one.key for one in schema.check({"source": 1})[1]], ["source"])

    def test_json_schema(self) -> None:
        """The JSON schema is closed, and has the descriptions."""
        schema = StructSchema(WebhookTable).json_schema()
        self.assertIs(schema["additionalProperties"], False)
        self.assertEqual(schema["properties"]["timestamp_tolerance_secs"]["description"], "How old a signature may be.")

    def test_json_schema_of_nested_structs(self) -> None:
        """References are put in place, so that the schema can stand in that of a manifest; recursion ends."""
        schema = StructSchema(Outer).json_schema()
        self.assertEqual(schema["properties"]["inner"]["properties"]["size"]["type"], "integer")
        self.assertEqual(schema["properties"]["more"]["items"]["title"], "Inner")
        self.assertNotIn("$ref", repr(schema) + repr(StructSchema(Tree).json_schema()))

    def test_rules_of_the_struct_itself(self) -> None:
        """What ``__post_init__`` refuses is a problem of the table."""
        settings, problems = StructSchema(Tree).check({"size": 7, "branches": []})
        self.assertEqual((settings, problems), (None, [SettingProblem(key="", message="7 is unlucky")]))
        self.assertIsNotNone(StructSchema(Tree).check({"size": 8})[0])


class Inner(msgspec.Struct, frozen=True):
    """A table in a table."""

    size: int = 1


class Outer(msgspec.Struct, frozen=True):
    """A table that holds others."""

    inner: Inner = Inner()
    more: list[Inner] = []


class Tree(msgspec.Struct, frozen=True):
    """A type that holds itself."""

    size: int = 1
    branches: list[Tree] = []

    def __post_init__(self) -> None:
        if self.size == 7:
            raise ValueError("7 is unlucky")


GOOD = [
    manifest_text(2),
    trigger_text("a", provider="webhook", extra="[triggers.webhook]\nsignature_scheme = 'stripe'\n"),
    trigger_text("p", provider="a2a-push", kind="a2a-push", secret=None, extra="autonomy_tier = 'act_auto'\n"),
    trigger_text("r", extra="timeout = '5m'\n[triggers.retry]\nbackoff = 'exponential'\nbase = '1s'\njitter = 0.1\n"),
    trigger_text("r", extra="retry = { backoff = 'linear', base = '2s', cap = '1m', jitter = 0 }\n"),
    trigger_text("r", extra="retry = { schedule = ['5s', '1m', '10m'], jitter = 0.2, max = 4 }\n"),
    '[package]\nname = "x"\n[exports]\nh = "h.py"\n[orchestrator]\nallow_empty = true\nmax-body-bytes = 5\n'
    'allowed_origins = ["*"]\n[orchestrator.retention]\nevents = "1d"\n[orchestrator.admission]\nrate = 0.5\n',
    "[orchestrator]\nallow_empty = true\n",
    trigger_text("a", extra="rollout = { percent = '10%', step = 20, every = '1m', max_failures = 2.5 }\n"),
    '[orchestrator]\nallow_empty = true\nlog-level = "warn"\n[orchestrator.reload]\nrevert-on-failures = "20 %"\n',
]
BAD = [
    "nmae = 1\n" + trigger_text("a"),
    trigger_text("a", extra="handlr = 1\n"),
    trigger_text("a", provider="kafka"),
    trigger_text("a", secret=None),
    trigger_text("a", extra="[triggers.webhook]\n"),
    trigger_text("a", provider="webhook", extra="[triggers.webhook]\nsignature_scheme = 'x'\n"),
    trigger_text("a", extra="[triggers.retry]\nmax = 101\n"),
    trigger_text("a", extra="retry = { schedule = [] }\n"),
    trigger_text("a", extra="retry = { schedule = [5] }\n"),
    trigger_text("a", kind="a2a-push"),
    trigger_text("a", extra="timeout = 30\n"),
    trigger_text("a", extra="throttle = {}\n"),
    "[orchestrator]\nallow_empty = 1\n",
    '[orchestrator]\nallow_empty = true\nlog_level = "loud"\n',
    '[orchestrator]\nallow_empty = true\n[orchestrator.reload]\nrevert_on_failures = "20 percent"\n',
    *(
        trigger_text("a", extra=f"rollout = {{ {text} }}\n")
        for text in (
            "step = 10",
            "percent = 0",
            "percent = 100",
            "percent = 'x'",
            "percent = true",
            "percent = 5, x = 1",
        )
    ),
]


class JsonSchemaTests(SynchronousTestCase):
    """`manifest_json_schema`."""

    def test_agrees_with_the_checks(self) -> None:
        """What a load accepts the schema accepts; these mistakes both refuse."""
        schema = manifest_json_schema(PROVIDERS)
        for text in GOOD:
            self.assertEqual((complaints(text), faults(schema, tomli.loads(text))), ([], []), text)
        for text in BAD:
            self.assertTrue(complaints(text), text)
            self.assertTrue(faults(schema, tomli.loads(text)), text)

    def test_is_json_and_described(self) -> None:
        """It is plain JSON of the 2020-12 draft, and every key of a trigger and of the settings has a description."""
        schema = msgspec.json.decode(msgspec.json.encode(manifest_json_schema(PROVIDERS)))
        self.assertEqual(schema["$schema"], "https://json-schema.org/draft/2020-12/schema")
        tables = [schema["properties"]["triggers"]["items"], schema["properties"]["orchestrator"]]
        for table in tables:
            for key, one in table["properties"].items():
                if one is not True:
                    self.assertTrue(one["description"].endswith("."), key)
        drain = schema["properties"]["orchestrator"]["properties"]["drain"]["properties"]
        self.assertEqual(drain["max_items"]["default"], 1024)
        reload = schema["properties"]["orchestrator"]["properties"]["reload"]["properties"]
        self.assertEqual(reload["drain_timeout"]["default"], "5m")
