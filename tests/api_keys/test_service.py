"""Named keys of a server: made, listed and revoked through its operations, and kept by its store."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.api_keys import feature
from harn.api_keys.operations import CreateKey, ListKeys, RevokeKey, create_key, list_keys, revoke_key
from harn.api_keys.service import NamedKeys
from harn.auth.keys import KEYS, KeyRing, digest_key
from harn.errors import EventLogUnavailable, NotPermitted, RouteUnknown, WrongState
from harn.lifecycle import StoreChanged
from harn.operations.model import Caller, Operation, Role
from harn.operations.parameters import Parameters
from harn.operations.registry import TOPIC
from harn.testing.kit import KitServer

ADMIN = Caller(actor="token", role=Role.ADMIN)


class NamedKeysTests(SynchronousTestCase):
    """The operations of a server in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.server = KitServer(self.clock)
        feature.install(self.server)

    def run_operation(self, operation: Operation[Any, Any, Any], wanted: Parameters, caller: Caller = ADMIN) -> Any:
        """Run an operation as the admin API does; return its result."""
        running = Deferred.fromCoroutine(self.server.operations.run(operation, caller, wanted))
        return self.successResultOf(running).result

    def fails(
        self, kind: type[Exception], operation: Operation[Any, Any, Any], wanted: Parameters, caller: Caller = ADMIN
    ) -> str:
        """Return the message of an operation that fails."""
        running = Deferred.fromCoroutine(self.server.operations.run(operation, caller, wanted))
        return str(self.failureResultOf(running, kind).value)

    def records(self) -> list[dict[str, Any]]:
        """Return the payloads of the audit records."""
        found = self.successResultOf(self.server.store.event_log.read(TOPIC, 0, 100))
        return [dict(record.payload) for record in found]

    def test_life_of_a_key(self) -> None:
        """It is shown once, counts at once, is listed without its value, and is refused once it is revoked."""
        made = self.run_operation(create_key, CreateKey(name="ci", role="operate"))
        ring = self.server[KeyRing]
        found = ring.holder(digest_key(made.key))
        assert found is not None
        self.assertEqual((found.actor, found.role, made.role), ("key:ci", Role.OPERATE, "operate"))
        listed = self.run_operation(list_keys, ListKeys())
        self.assertEqual([(each.name, each.role, each.made_by) for each in listed.keys], [("ci", "operate", "token")])
        self.assertNotIn(made.key, str(to_builtins(listed)))
        self.run_operation(revoke_key, RevokeKey(name="ci"))
        self.assertEqual((ring.holder(digest_key(made.key)), list(ring)), (None, []))
        self.assertIn("none", self.fails(RouteUnknown, revoke_key, RevokeKey(name="ci")))

    def test_audit(self) -> None:
        """Each change is recorded with its actor, its name and role; the key is in no record, nor in the store."""
        made = self.run_operation(create_key, CreateKey(name="ci", role="read"))
        self.run_operation(revoke_key, RevokeKey(name="ci"))
        created, revoked = self.records()
        self.assertEqual((created["operation"], created["actor"]), ("keys.create", "token"))
        self.assertEqual(created["parameters"], {"name": "ci", "role": "read"})
        self.assertEqual((revoked["operation"], revoked["counts"]), ("keys.revoke", {"revoked": 1}))
        self.assertNotIn(made.key, str(self.records()))

    def test_another_server(self) -> None:
        """A key that another server revokes between the read and the write of this one stays revoked on both."""
        self.run_operation(create_key, CreateKey(name="old", role="read"))
        other = KitServer(self.clock, store=self.server.store)
        feature.install(other)
        checkpoints = self.server.store.checkpoints
        get, (asked, kept) = checkpoints.get, (Deferred[Any](), self.successResultOf(checkpoints.get(KEYS)))
        self.patch(checkpoints, "get", lambda name: asked)
        creating = Deferred.fromCoroutine(
            self.server.operations.run(create_key, ADMIN, CreateKey(name="new", role="read"))
        )
        self.patch(checkpoints, "get", get)
        self.successResultOf(Deferred.fromCoroutine(other[NamedKeys].revoke("old")))
        asked.callback(kept)
        self.successResultOf(creating)
        self.assertEqual([each["name"] for each in self.successResultOf(get(KEYS))], ["new"])
        self.assertEqual([each.name for each in self.server[KeyRing]], ["new"])

    def test_changes_during_a_read(self) -> None:
        """What another server changes while this one reads the keys is read, too."""
        self.run_operation(create_key, CreateKey(name="ci", role="read"))
        checkpoints = self.server.store.checkpoints
        asked, kept = [Deferred[Any](), Deferred[Any]()], self.successResultOf(checkpoints.get(KEYS))
        waiting = list(asked)
        self.patch(checkpoints, "get", lambda name: waiting.pop(0))
        for _ in range(4):
            self.server.lifecycle.emit(StoreChanged(frozenset([KEYS])))
        asked[0].callback(kept)
        asked[1].callback(None)
        self.assertEqual((list(self.server[KeyRing]), waiting), ([], []))

    def test_restart(self) -> None:
        """The next server accepts the same keys."""
        made = self.run_operation(create_key, CreateKey(name="ci", role="read"))
        kept = self.successResultOf(self.server.store.checkpoints.get(KEYS))
        self.assertNotIn(made.key, str(kept))
        after = KitServer(self.clock, store=self.server.store)
        feature.install(after)
        self.successResultOf(Deferred.fromCoroutine(after[NamedKeys].load()))
        found = after[KeyRing].holder(digest_key(made.key))
        self.assertEqual(None if found is None else found.name, "ci")

    def test_damaged_record(self) -> None:
        """A key whose record is damaged is not accepted; the others are."""
        made = self.run_operation(create_key, CreateKey(name="ci", role="read"))
        kept = self.successResultOf(self.server.store.checkpoints.get(KEYS))
        self.successResultOf(self.server.store.checkpoints.put(KEYS, [*kept, {"name": "x", "role": "god"}]))
        self.successResultOf(Deferred.fromCoroutine(self.server[NamedKeys].load()))
        self.assertEqual([each.name for each in self.server[KeyRing]], ["ci"])
        self.assertIsNotNone(self.server[KeyRing].holder(digest_key(made.key)))

    def test_twice(self) -> None:
        """A name counts once."""
        self.run_operation(create_key, CreateKey(name="ci", role="read"))
        self.assertIn("already", self.fails(WrongState, create_key, CreateKey(name="ci", role="admin")))

    def test_full_disk(self) -> None:
        """What cannot be recorded has not happened: no key is accepted, and none is lost."""
        self.run_operation(create_key, CreateKey(name="ci", role="read"))
        self.server.store.fail_writes = True
        self.fails(EventLogUnavailable, create_key, CreateKey(name="more", role="read"))
        self.fails(EventLogUnavailable, revoke_key, RevokeKey(name="ci"))
        self.assertEqual([each.name for each in self.server[KeyRing]], ["ci"])

    def test_roles(self) -> None:
        """Only an admin may make, list or revoke keys; the refusal names the role."""
        for role in (Role.READ, Role.OPERATE):
            caller = Caller(actor="key:x", role=role)
            for operation, wanted in (
                (create_key, CreateKey(name="ci", role="read")),
                (list_keys, ListKeys()),
                (revoke_key, RevokeKey(name="ci")),
            ):
                self.assertIn("must be admin", self.fails(NotPermitted, operation, wanted, caller))

    def test_wrong_names(self) -> None:
        """A wrong name is refused with what it must be."""
        self.assertIn("must be", str(self.assertRaises(ValueError, CreateKey, name="C I", role="read")))
