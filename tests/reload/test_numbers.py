"""What a store remembers of generations, as the next server takes it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from harn.reload.generation import WITHDRAWN, LastGeneration, VersionNumbers
from harn.store.generations import BindingRecord, GenerationRecord, LiveBinding
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion
from tests.triggers.examples import definition, spec


class LastGenerationTests(TestCase):
    async def test_reserved_adopted_withdrawn(self) -> None:
        """The highest number counts that may have served; its digest only when it is known to."""
        store = PumpedStore(Clock())
        await store.open()
        self.addCleanup(store.close)
        seen = [await LastGeneration.of(store.generations)]
        await store.generations.reserve(generation(1), b"bundle", b"manifest")
        seen.append(await LastGeneration.of(store.generations))
        await store.generations.reserve(generation(1, WITHDRAWN), None)
        seen.append(await LastGeneration.of(store.generations))
        await store.generations.reserve(generation(1, "sha256:one"), None)
        await store.generations.adopted(1, 1.0)
        seen.append(await LastGeneration.of(store.generations))
        await store.generations.reserve(generation(2, "sha256:two", "a"), None)
        seen.append(await LastGeneration.of(store.generations))
        await store.generations.reserve(generation(2, WITHDRAWN), None)
        seen.append(await LastGeneration.of(store.generations))
        self.assertEqual(await store.generations.latest_bindings(), {})
        await store.generations.reserve(generation(2, "sha256:other", "a"), None)
        await store.generations.adopted(2, 2.0)
        seen.append(await LastGeneration.of(store.generations))
        expected = [(0, None), (1, None), (0, None), (1, "sha256:one"), (2, None), (1, "sha256:one")]
        self.assertEqual([(each.number, each.digest) for each in seen], [*expected, (2, "sha256:other")])
        self.assertEqual((await store.generations.latest_bindings())["a"].version, 1)


class VersionNumbersTests(TestCase):
    def test_numbers(self) -> None:
        """A known definition keeps its number at a start; any other gets the next, and a new trigger 1."""
        known = definition(spec("a"), "code-1")
        numbers = VersionNumbers({"a": LiveBinding(version=4, fingerprint=known.fingerprint, bundle_id="b")})
        other = definition(spec("a"), "code-2")
        self.assertEqual((numbers.kept(known), numbers.kept(other)), (4, None))
        self.assertEqual((numbers.following("a"), numbers.following("b")), (5, 1))
        self.assertEqual(
            (numbers.keeps([known]), numbers.keeps([known, other]), numbers.keeps([])), (True, False, True)
        )

    def test_numbers_of_what_is_adopted(self) -> None:
        """They only rise, and earlier ones stay the same for their holders."""
        known = LiveBinding(version=4, fingerprint="f", bundle_id="b")
        numbers = VersionNumbers({"a": known, "b": known, "c": known})
        given = (("a", 5), ("b", 3), ("d", 1))
        versions = [BindingVersion(definition(spec(each), "code"), number, "b") for each, number in given]
        raised = numbers.raised(versions)
        self.assertEqual([raised.following(each) for each in "abcd"], [6, 5, 5, 2])
        self.assertEqual([numbers.following(each) for each in "abcd"], [5, 5, 5, 1])
        self.assertEqual(raised.kept(versions[0].definition), 5)


def generation(number: int, digest: str = "sha256:x", trigger_id: str | None = None) -> GenerationRecord:
    """Make a record, perhaps with one new binding."""
    new = () if trigger_id is None else (record(trigger_id, number, digest),)
    return GenerationRecord(
        number=number,
        digest=digest,
        bundle_id="b",
        source="cli",
        actor="me",
        bindings=new,
        manifest_digest="m",
    )


def record(trigger_id: str, number: int, fingerprint: str) -> BindingRecord:
    """Make the record of a trigger's first version."""
    return BindingRecord(
        trigger_id=trigger_id, version=1, fingerprint=fingerprint, generation=number, bundle_id="b", spec=b"{}"
    )
