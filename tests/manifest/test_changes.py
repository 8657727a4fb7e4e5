"""Naming what differs."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest.changes import changed_fields, changed_settings, settings_requiring_restart
from harn.manifest.model import RetrySpec, RolloutSpec, TriggerSpec
from harn.manifest.settings import DrainSettings, OrchestratorSettings

SPEC = TriggerSpec(
    id="gh",
    kind="webhook",
    provider="a2a-push",
    path="/a",
    handler="m:f",
    secrets={"signing_secret": ("github/a",)},
    settings={"x": 1, "deep": {"y": [1]}},
)


class ChangedFieldsTests(SynchronousTestCase):
    """`changed_fields`."""

    def test_equal(self) -> None:
        """Equal specs differ in nothing."""
        self.assertEqual(changed_fields(SPEC, msgspec.structs.replace(SPEC)), ())

    def test_names(self) -> None:
        """Keys are named as they are written in the manifest."""
        new = msgspec.structs.replace(
            SPEC,
            path="/b",
            events=("a",),
            when="m:g",
            retry=RetrySpec(max=3, version="pinned"),
            secrets={"signing_secret": ("github/b",), "token": ("github/t",)},
            settings={"x": True, "deep": {"y": [2], "z": None}},
        )
        self.assertEqual(
            changed_fields(SPEC, new),
            (
                "a2a_push.deep.y",
                "a2a_push.deep.z",
                "a2a_push.x",
                "match.events",
                "path",
                "retry.max",
                "retry.version",
                "secrets.signing_secret",
                "secrets.token",
                "when",
            ),
        )
        self.assertIn("push.x", changed_fields(SPEC, new, "push"))

    def test_rollout(self) -> None:
        """How a change comes into force is never named as one."""
        new = msgspec.structs.replace(SPEC, rollout=RolloutSpec(percent=0.1))
        self.assertEqual(changed_fields(SPEC, new), ())
        self.assertEqual(changed_fields(SPEC, msgspec.structs.replace(new, path="/b")), ("path",))

    @given(
        st.builds(RolloutSpec, percent=st.floats(0, 1), step=st.floats(0, 1), max_failures=st.none() | st.floats(0, 1))
    )
    def test_rollout_is_no_part_of_what_runs(self, rollout: RolloutSpec) -> None:
        """Whatever the rollout, the fingerprint is that of the trigger without one."""
        self.assertEqual(msgspec.structs.replace(SPEC, rollout=rollout).fingerprint(), SPEC.fingerprint())

    def test_every_other_field_is_part_of_what_runs(self) -> None:
        """A field that is added to a trigger counts in its fingerprint, unless it says otherwise there."""
        other = {"id": "b", "retry": RetrySpec(max=3), "timeout": 1.0, "secrets": {}, "settings": {}, "events": ("x",)}
        for name in TriggerSpec.__struct_fields__:
            if name != "rollout":
                new = msgspec.structs.replace(SPEC, **{name: other.get(name, "other")})
                self.assertNotEqual(new.fingerprint(), SPEC.fingerprint(), name)

    def test_table_gone(self) -> None:
        """A table of settings that is there on one side alone is named whole."""
        self.assertEqual(changed_fields(SPEC, msgspec.structs.replace(SPEC, settings=None)), ("a2a_push",))


class SettingsTests(SynchronousTestCase):
    """Changes of ``[orchestrator]``."""

    def test_changed_and_restart(self) -> None:
        """Every changed key is named; those that only a restart can change are told apart."""
        old = OrchestratorSettings()
        new = OrchestratorSettings(recover="manual", drain=DrainSettings(max_items=1))
        self.assertEqual(changed_settings(old, new), ("drain.max_items", "recover"))
        self.assertEqual(settings_requiring_restart(old, new), ("orchestrator.recover",))
        self.assertEqual(settings_requiring_restart(old, old), ())
