"""Generations: their numbers, their content and its retention; and values that outlive a restart."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from harn.errors import StoreError
from harn.store.generations import LiveBinding
from harn.testing.stores.kit import (
    KEEP,
    NOW,
    StoreTestCase,
    binding_of,
    generation_of,
)

SUMMARY = {"added": ["gh"], "modified": {"é": [1, None, 0.5]}, "unchanged": 10_000}


class GenerationTests(StoreTestCase):
    """The promises of `IGenerations` and `ICheckpoints`."""

    def adopt_content(self, number: int, content: str, **changes: Any) -> None:
        """Adopt a generation with a bundle and a manifest of its own; each is handed over if it is not there."""
        generation = generation_of(number, bundle_id=f"sha256:b{content}", manifest_digest=f"sha256:m{content}")
        self.adopt(replace(generation, **changes), f"bundle {content}".encode(), f"manifest {content}".encode())

    def contents(self, *names: str) -> list[str]:
        """Return those of ``names`` whose bundle and manifest are both kept."""
        found = []
        for name in names:
            bundle = self.result_of(self.store.generations.bundle(f"sha256:b{name}"))
            manifest = self.result_of(self.store.generations.manifest(f"sha256:m{name}"))
            self.assertEqual(bundle is None, manifest is None)
            if bundle is not None and manifest is not None:
                self.assertEqual((bundle, manifest), (f"bundle {name}".encode(), f"manifest {name}".encode()))
                found.append(name)
        return found

    # Generations

    def test_content_of_a_generation(self) -> None:
        """A generation comes back with every field, and its manifest byte for byte, after a restart too."""
        text = b"\x00\xff# not even text"
        generation = generation_of(
            7, manifest_digest="sha256:m", recalled=3, reason="the last one failed", summary=SUMMARY
        )
        self.adopt(generation, b"bundle", text)
        self.restart()
        adopted = replace(generation, adopted_at=NOW)
        self.assertEqual(self.result_of(self.store.generations.generation(7)), adopted)
        self.assertEqual(self.result_of(self.store.generations.last()), adopted)
        self.assertEqual(self.result_of(self.store.generations.history(5)), [adopted])
        self.assertEqual(self.result_of(self.store.generations.manifest("sha256:m")), text)
        self.assertIsNone(self.result_of(self.store.generations.manifest("sha256:other")))

    def test_adopted_again(self) -> None:
        """A restart that continues a generation leaves the time at which it was first adopted."""
        self.adopt(generation_of(1), b"bundle", None)
        self.result_of(self.store.generations.adopted(1, NOW + 9, {"probation": {"generation": 1}}))
        self.restart()
        self.assertEqual(self.result_of(self.store.generations.history(5)), [generation_of(1, adopted_at=NOW)])
        self.assertEqual(self.result_of(self.store.checkpoints.get("probation")), {"generation": 1})

    def test_only_adopted_generations_are_shown(self) -> None:
        """A number that was only reserved, or never given, is not shown as a generation."""
        self.result_of(self.store.generations.reserve(generation_of(1), b"bundle"))
        self.assertIsNone(self.result_of(self.store.generations.generation(1)))
        self.assertIsNone(self.result_of(self.store.generations.generation(2)))
        self.result_of(self.store.generations.adopted(1, NOW))
        self.assertEqual(self.result_of(self.store.generations.generation(1)), generation_of(1, adopted_at=NOW))

    def test_a_manifest_is_kept_once(self) -> None:
        """The manifest of an earlier generation need not be handed over again, and is not replaced."""
        self.adopt_content(1, "a")
        self.adopt(generation_of(2, bundle_id="sha256:ba", manifest_digest="sha256:ma"), None)
        self.adopt(generation_of(3, bundle_id="sha256:ba", manifest_digest="sha256:ma"), None, b"other")
        self.assertEqual(self.contents("a"), ["a"])

    def test_a_manifest_must_be_known(self) -> None:
        """A manifest that is named must be there or handed over, and one handed over must be named; else nothing is."""
        self.adopt_content(1, "a")
        for refused in (
            self.store.generations.reserve(
                generation_of(2, bundle_id="sha256:ba", manifest_digest="sha256:unknown"), None
            ),
            self.store.generations.reserve(generation_of(2, bundle_id="sha256:ba"), None, b"nameless"),
            self.store.generations.reserve(generation_of(2, bundle_id="sha256:ba", summary={"no": object()}), None),
        ):
            with self.assertRaises(StoreError):
                self.result_of(refused)
        last = self.result_of(self.store.generations.last())
        assert last is not None
        self.assertEqual(last.number, 1)
        self.assertIsNone(self.result_of(self.store.generations.manifest("")))

    # Standing values

    def test_values_are_kept(self) -> None:
        """A value is kept under its name, in place of the previous one, over restarts, until it is removed."""
        self.assertIsNone(self.result_of(self.store.checkpoints.get("probation")))
        for value in ([1, None, {"é": 0.5}], False, 0, "", {"generation": 7}):
            self.result_of(self.store.checkpoints.put("probation", value))
            self.assertEqual(self.result_of(self.store.checkpoints.get("probation")), value)
        self.result_of(self.store.checkpoints.put("other", "x"))
        self.result_of(self.store.checkpoints.put("other:2", "y"))
        self.assertEqual(self.result_of(self.store.checkpoints.beginning("other")), {"other": "x", "other:2": "y"})
        self.assertEqual(self.result_of(self.store.checkpoints.beginning("others")), {})
        self.restart()
        self.assertEqual(self.result_of(self.store.checkpoints.get("probation")), {"generation": 7})
        for _ in range(2):
            self.result_of(self.store.checkpoints.put("probation", None))
            self.assertIsNone(self.result_of(self.store.checkpoints.get("probation")))
        self.assertEqual(self.result_of(self.store.checkpoints.get("other")), "x")

    def test_a_value_is_kept_as_it_was(self) -> None:
        """What is done to a value afterwards, or to one that was read, does not change what is kept."""
        value = {"a": [1]}
        keeping = self.store.checkpoints.put("name", value)
        value["a"].append(2)
        self.result_of(keeping)
        self.result_of(self.store.checkpoints.get("name"))["a"].append(3)
        self.assertEqual(self.result_of(self.store.checkpoints.get("name")), {"a": [1]})

    def test_a_value_must_be_json(self) -> None:
        """A value that JSON has no form for is refused immediately."""
        with self.assertRaises(TypeError):
            self.store.checkpoints.put("name", object())
        with self.assertRaises(TypeError):
            self.store.generations.adopted(1, NOW, {"name": object()})
        self.assertIsNone(self.result_of(self.store.checkpoints.get("name")))

    def test_amending(self) -> None:
        """Entries of an object change one by one, whoever changed others; without entries there is no object."""
        amend, get = self.store.checkpoints.amend, self.store.checkpoints.get
        value = {"by": "me"}
        amending = amend("name", {"a": value, "b": 2})
        value["by"] = "changed later"
        self.assertEqual(self.result_of(amending), {"a": {"by": "me"}, "b": 2})
        self.assertEqual(self.result_of(amend("name", {"b": None, "c": 3, "d": None})), {"a": {"by": "me"}, "c": 3})
        self.assertEqual(self.result_of(get("name")), {"a": {"by": "me"}, "c": 3})
        self.assertEqual(self.result_of(amend("name", {"a": None, "c": None})), {})
        self.assertIsNone(self.result_of(get("name")))
        self.result_of(self.store.checkpoints.put("name", [1]))
        self.assertEqual(self.result_of(amend("name", {"a": 1})), {"a": 1})

    def test_replacing(self) -> None:
        """A value takes the place of the one that was read; where that has changed since, nothing is written."""
        replace, get = self.store.checkpoints.replace, self.store.checkpoints.get
        self.assertTrue(self.result_of(replace("name", None, [{"at": 0.1}])))
        self.assertFalse(self.result_of(replace("name", None, [2])))
        self.assertFalse(self.result_of(replace("name", [], None)))
        self.assertEqual(self.result_of(get("name")), [{"at": 0.1}])
        self.assertTrue(self.result_of(replace("name", [{"at": 0.1}], [2])))
        self.assertEqual(self.result_of(get("name")), [2])
        self.assertTrue(self.result_of(replace("name", [2], None)))
        self.assertIsNone(self.result_of(get("name")))

    def test_adopted_with_values(self) -> None:
        """With the note that a generation serves, values are kept or removed, in one unit: all or nothing."""
        self.result_of(self.store.checkpoints.put("old", 1))
        self.result_of(self.store.generations.reserve(generation_of(1), b"bundle"))
        with self.assertRaises(StoreError):
            self.result_of(self.store.generations.adopted(2, NOW, {"old": None, "new": 2}))
        self.assertEqual([self.result_of(self.store.checkpoints.get(name)) for name in ("old", "new")], [1, None])
        self.result_of(self.store.generations.adopted(1, NOW, {"old": None, "new": 2}))
        self.assertEqual([self.result_of(self.store.checkpoints.get(name)) for name in ("old", "new")], [None, 2])

    # Retention

    def test_so_many_generations_are_kept(self) -> None:
        """So many adopted generations are kept with their content, and no more."""
        for number in range(1, 7):
            self.adopt_content(number, str(number))
        self.trim_all(replace(KEEP, generations=2), NOW)
        self.assertEqual([record.number for record in self.result_of(self.store.generations.history(10))], [6, 5])
        self.assertEqual(self.contents(*"123456"), ["5", "6"])

    def test_the_newest_is_always_kept(self) -> None:
        """Whatever the policy says, the newest adopted generation stays, and what is reserved above it."""
        for number in range(1, 4):
            self.adopt_content(number, str(number))
        reserved = generation_of(4, bundle_id="sha256:b4", manifest_digest="sha256:m4")
        self.result_of(self.store.generations.reserve(reserved, b"bundle 4", b"manifest 4"))
        for generations in (1, 0, -5):
            self.trim_all(replace(KEEP, generations=generations), NOW)
            self.assertEqual([record.number for record in self.result_of(self.store.generations.history(10))], [3])
            self.assertEqual(self.contents(*"1234"), ["3", "4"])
        self.assertEqual(self.result_of(self.store.generations.last()), reserved)

    def test_named_generations_are_kept(self) -> None:
        """Generations that the policy names stay with their bundles, manifests and versions, however old they are."""
        for number in range(1, 6):
            self.adopt_content(
                number, str(number), bindings=(binding_of(number, number, bundle_id=f"sha256:b{number}"),)
            )
        policy = replace(KEEP, generations=1, kept=(2, 99))
        self.trim_all(policy, NOW)
        self.assertEqual([record.number for record in self.result_of(self.store.generations.history(10))], [5, 2])
        self.assertEqual(self.contents(*"12345"), ["2", "5"])
        versions = self.result_of(self.store.generations.bindings([("gh", version) for version in range(1, 6)]))
        self.assertEqual([record.version for record in versions], [2, 5])
        self.trim_all(replace(policy, kept=()), NOW)
        self.assertEqual(self.contents(*"12345"), ["5"])

    def test_content_that_came_back_is_kept(self) -> None:
        """A bundle and a manifest that a kept generation shares with one that went stay."""
        self.adopt_content(1, "a")
        self.adopt_content(2, "b")
        self.adopt_content(3, "a", recalled=1)
        self.trim_all(replace(KEEP, generations=1), NOW)
        self.assertEqual(self.contents("a", "b"), ["a"])
        self.assertIsNone(self.result_of(self.store.generations.generation(1)))

    def test_definitions_are_trimmed_in_slices(self) -> None:
        """One call removes no more than it may, of definitions too."""
        for number in range(1, 4):
            self.adopt_content(
                number, str(number), bindings=(binding_of(number, number, bundle_id=f"sha256:b{number}"),)
            )
        policy = replace(KEEP, generations=1)
        counts = [self.result_of(self.store.trim(policy, NOW, 3)) for _ in range(4)]
        self.assertEqual(counts, [3, 3, 2, 0])

    def test_first_generation(self) -> None:
        """An empty store has no generation; the first is reserved, then adopted."""
        self.assertIsNone(self.result_of(self.store.generations.last()))
        self.assertEqual(self.result_of(self.store.generations.latest_bindings()), {})
        self.result_of(self.store.generations.reserve(generation_of(1, binding_of(1, 1), removed=("old",)), b"bundle"))
        self.assertEqual(self.result_of(self.store.generations.history(10)), [])
        self.assertEqual(self.result_of(self.store.generations.last()), generation_of(1, removed=("old",)))
        self.result_of(self.store.generations.adopted(1, NOW + 1))
        adopted = generation_of(1, adopted_at=NOW + 1, removed=("old",))
        self.assertEqual(self.result_of(self.store.generations.last()), adopted)
        self.assertEqual(self.result_of(self.store.generations.history(10)), [adopted])
        live = LiveBinding(version=1, fingerprint="f1", bundle_id="sha256:b1")
        self.assertEqual(self.result_of(self.store.generations.latest_bindings()), {"gh": live})
        self.assertEqual(self.result_of(self.store.generations.bindings([("gh", 1), ("gh", 9)])), [binding_of(1, 1)])
        self.assertEqual(self.result_of(self.store.generations.bundle("sha256:b1")), b"bundle")
        self.assertIsNone(self.result_of(self.store.generations.bundle("sha256:unknown")))

    def test_numbers_outlive_a_restart(self) -> None:
        """Generations, the newest versions and bundles are known after a restart; history has the newest first."""
        self.adopt(generation_of(1, binding_of(1, 1), binding_of(1, 1, trigger_id="gone")))
        self.adopt(generation_of(2, binding_of(2, 2), removed=("gone",)), None)
        self.restart()
        self.assertEqual([record.number for record in self.result_of(self.store.generations.history(10))], [2, 1])
        self.assertEqual([record.number for record in self.result_of(self.store.generations.history(1))], [2])
        latest = self.result_of(self.store.generations.latest_bindings())
        self.assertEqual({name: live.version for name, live in latest.items()}, {"gh": 2, "gone": 1})
        self.assertEqual(self.result_of(self.store.generations.bundle("sha256:b1")), b"bundle")

    def test_reservation_is_replaced(self) -> None:
        """A number that was only reserved is given again, and the versions of its reservation are removed."""
        self.adopt(generation_of(1, binding_of(1, 1)))
        self.result_of(
            self.store.generations.reserve(generation_of(2, binding_of(2, 2), binding_of(1, 2, trigger_id="x")), None)
        )
        self.assertEqual(self.result_of(self.store.generations.latest_bindings())["gh"].version, 2)
        self.adopt(generation_of(2, binding_of(1, 2, trigger_id="y")), None)
        latest = self.result_of(self.store.generations.latest_bindings())
        self.assertEqual({name: live.version for name, live in latest.items()}, {"gh": 1, "y": 1})
        self.assertEqual(self.result_of(self.store.generations.bindings([("gh", 2), ("x", 1)])), [])

    def test_unnoted_versions_count(self) -> None:
        """Versions of a reserved generation are the latest ones, also after a restart: it may have served."""
        self.adopt(generation_of(1, binding_of(1, 1)))
        self.result_of(
            self.store.generations.reserve(generation_of(2, binding_of(2, 2), binding_of(1, 2, trigger_id="x")), None)
        )
        for _ in range(2):
            latest = self.result_of(self.store.generations.latest_bindings())
            self.assertEqual({name: live.version for name, live in latest.items()}, {"gh": 2, "x": 1})
            self.restart()
        self.result_of(self.store.generations.reserve(generation_of(2, digest=""), None))  # it is withdrawn
        latest = self.result_of(self.store.generations.latest_bindings())
        self.assertEqual({name: live.version for name, live in latest.items()}, {"gh": 1})

    def test_numbers_as_of_a_generation(self) -> None:
        """Those of later generations do not count, nor of earlier ones that were only reserved; its own always do."""
        self.adopt(generation_of(1, binding_of(1, 1)))
        self.result_of(self.store.generations.reserve(generation_of(2, binding_of(2, 2)), None))
        self.adopt(generation_of(3, binding_of(1, 3, trigger_id="x")), None)
        self.result_of(self.store.generations.reserve(generation_of(4, binding_of(2, 4, trigger_id="x")), None))
        seen = [self.result_of(self.store.generations.bindings_at(number)) for number in range(5)]
        versions = [{name: live.version for name, live in each.items()} for each in seen]
        self.assertEqual(versions, [{}, {"gh": 1}, {"gh": 2}, {"gh": 1, "x": 1}, {"gh": 1, "x": 2}])
        self.assertEqual(seen[2]["gh"], LiveBinding(version=2, fingerprint="f2", bundle_id="sha256:b1"))

    def test_number_after_a_reservation(self) -> None:
        """A reservation that a crash left may also be passed over: its versions are given again."""
        self.adopt(generation_of(1, binding_of(1, 1)))
        self.result_of(self.store.generations.reserve(generation_of(2, binding_of(2, 2)), None))
        self.adopt(generation_of(3, replace(binding_of(2, 3), fingerprint="other")), None)
        self.assertEqual(self.result_of(self.store.generations.latest_bindings())["gh"].fingerprint, "other")

    def test_adopted_numbers_are_not_given_again(self) -> None:
        """A generation or version that was adopted is not overwritten, and a bundle must be known."""
        self.adopt(generation_of(1, binding_of(1, 1)))
        for refused in (
            self.store.generations.reserve(generation_of(1), None),
            self.store.generations.reserve(generation_of(2, binding_of(1, 2)), None),
            self.store.generations.reserve(generation_of(2, bundle_id="sha256:unknown"), None),
            self.store.generations.adopted(7, NOW),
        ):
            with self.assertRaises(StoreError):
                self.result_of(refused)
        self.assertEqual(self.result_of(self.store.generations.last()), generation_of(1, adopted_at=NOW))
        self.assertEqual(self.result_of(self.store.generations.bindings([("gh", 1)])), [binding_of(1, 1)])
