"""Named keys: their names, digests and roles, and what the authenticator makes of them."""

from __future__ import annotations

import hashlib

from msgspec import to_builtins
from twisted.trial.unittest import SynchronousTestCase

from harn.auth.authenticator import Authenticator, Identity
from harn.auth.credentials import Credentials
from harn.auth.keys import (
    MOST,
    KeyRing,
    NamedKey,
    digest_key,
    fault_of_name,
    make_key,
    read_keys,
    with_key,
    without_key,
)
from harn.errors import CredentialsRejected, RouteUnknown, WrongState
from harn.model.display import REDACTED
from harn.operations.model import Role

NOW = 1_700_000_000.0


def named(name: str, key: str = "k", role: Role = Role.READ) -> NamedKey:
    """Return the record of a key."""
    return NamedKey(name=name, role=role, digest=digest_key(key), made_at=NOW, made_by="token")


class KeyTests(SynchronousTestCase):
    """Records of keys."""

    def test_keys_are_random(self) -> None:
        """No two are the same, and each is long enough not to be guessed."""
        made = {make_key() for _ in range(50)}
        self.assertEqual((len(made), min(map(len, made)) > 40), (50, True))

    def test_record(self) -> None:
        """What is stored holds the digest and not the key, and is read back; damaged entries open nothing."""
        key = make_key()
        record = to_builtins(named("ci", key, Role.OPERATE))
        self.assertNotIn(key, str(record))
        self.assertEqual(record["digest"], hashlib.sha256(key.encode()).hexdigest())
        damaged = {**record, "role": "root"}
        self.assertEqual(read_keys([record, damaged, "x"]), (named("ci", key, Role.OPERATE),))
        self.assertEqual((read_keys(None), read_keys({}), read_keys("x")), ((), (), ()))

    def test_names(self) -> None:
        """A name is short and plain, and cannot be taken for that of a key of the environment."""
        for name in ("ci", "a", "grafana-2", "jane.doe", "a" * 40, "deadbeef1"):
            self.assertEqual(fault_of_name(name), "", name)
        for name in ("", "CI", "-a", "a-", "a b", "a" * 41, "deadbeef", "é", "a\n"):
            self.assertIn("must", fault_of_name(name), name)

    def test_changes(self) -> None:
        """A name counts once, the number of keys is bounded, and an unknown name is answered with the known ones."""
        keys = with_key(with_key((), named("b")), named("a"))
        self.assertEqual([each.name for each in keys], ["a", "b"])
        self.assertIn("revoke it first", str(self.assertRaises(WrongState, with_key, keys, named("a"))))
        self.assertEqual([each.name for each in without_key(keys, "a")], ["b"])
        self.assertIn("a, b", str(self.assertRaises(RouteUnknown, without_key, keys, "c")))
        many = [named(f"k{number}") for number in range(MOST)]
        self.assertRaises(WrongState, with_key, many, named("one-more"))


class AuthenticatorTests(SynchronousTestCase):
    """Requests with named keys."""

    def setUp(self) -> None:
        self.ring = KeyRing()
        self.ring.replace([named("look", "look-key"), named("ci", "ci-key", Role.OPERATE)])
        self.admin = Authenticator(Credentials(keys=(b"env-key",)), b"token", self.ring)

    def identity(self, key: str) -> Identity:
        """Authenticate by a key."""
        return self.admin.authenticate("GET", "/admin/inspect", {"authorization": f"Bearer {key}"}, b"", NOW)

    def test_roles(self) -> None:
        """A named key has its role and its name; those of the environment and the token are admin."""
        self.assertEqual(self.identity("look-key"), Identity("key:look", role=Role.READ))
        self.assertEqual(self.identity("ci-key"), Identity("key:ci", role=Role.OPERATE))
        self.assertEqual([self.identity(key).role for key in ("env-key", "token")], [Role.ADMIN, Role.ADMIN])

    def test_at_once(self) -> None:
        """A change of the ring counts for the next request."""
        self.ring.replace([named("new", "new-key")])
        self.assertEqual(self.identity("new-key").actor, "key:new")
        self.assertRaises(CredentialsRejected, self.identity, "look-key")

    def test_routes_of_triggers(self) -> None:
        """There they are not accepted, and yet taken out of the headers that are stored."""
        routes = Authenticator(Credentials(), ring=self.ring, accepts_named=False)
        for headers in ({"authorization": "Bearer look-key"}, {"x-api-key": "look-key"}):
            self.assertRaises(CredentialsRejected, routes.authenticate, "POST", "/a2a", headers, b"", NOW)
            self.assertEqual(set(routes.without_ours(headers).values()), {REDACTED})
        other = {"authorization": "Bearer another"}
        self.assertIs(routes.without_ours(other), other)
