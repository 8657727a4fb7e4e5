"""What a reload makes of the bindings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest.model import RetrySpec
from harn.triggers.binding import Definition
from harn.triggers.reconcile import Plan, differences, reconcile
from tests.triggers.examples import definition, spec

Side = dict[str, tuple[str, float]]

SIDES = st.dictionaries(
    st.sampled_from([f"t{number}" for number in range(6)]),
    st.tuples(st.sampled_from(("code-1", "code-2")), st.sampled_from((30.0, 60.0))),
)


def definitions(side: Side) -> dict[str, Definition]:
    """Define each trigger of one side."""
    return {
        trigger_id: definition(spec(trigger_id, timeout=timeout), code) for trigger_id, (code, timeout) in side.items()
    }


class ReconcileTests(SynchronousTestCase):
    @given(SIDES, SIDES)
    def test_partitions_the_ids(self, before: Side, after: Side) -> None:
        """Every id of both sides is in exactly one part, sorted, and for the right reason."""
        plan = reconcile(definitions(before), definitions(after))
        parts = [*plan.added, *plan.modified, *plan.removed, *plan.unchanged]
        self.assertEqual(sorted(parts), sorted({*before, *after}))
        for part in (plan.added, plan.modified, plan.removed, plan.unchanged):
            self.assertEqual(list(part), sorted(part))
        self.assertEqual(set(plan.added), set(after) - set(before))
        self.assertEqual(set(plan.removed), set(before) - set(after))
        self.assertEqual(set(plan.unchanged), {each for each in after if before.get(each) == after[each]})
        self.assertEqual(set(plan.changes), set(plan.modified))
        self.assertTrue(all(plan.changes.values()))

    @given(SIDES)
    def test_the_same_again_changes_nothing(self, side: Side) -> None:
        """A side against itself, and against an equal one, is an empty plan."""
        plan = reconcile(definitions(side), definitions(side))
        self.assertEqual((plan.added, plan.modified, plan.removed, dict(plan.changes)), ((), (), (), {}))

    def test_first(self) -> None:
        """Against nothing, everything is added."""
        self.assertEqual(reconcile({}, {"gh": definition()}), Plan(added=("gh",)))


class DifferencesTests(SynchronousTestCase):
    def test_says_what_changed(self) -> None:
        """Code, predicate code and each field are named; a handler of another name does not count as changed code."""
        live = definition(spec(when="handlers:when"), "code-1", "predicate-1")
        other = definition(spec(when="handlers:when", retry=RetrySpec(max=3), timeout=5.0), "code-2", "predicate-2")
        found = differences(live, other)
        self.assertEqual(found[:2], ("handler code", "predicate code"))
        self.assertEqual({"retry.max", "timeout"}, set(found[2:]))
        renamed = definition(spec(when="handlers:when", handler="handlers:other"), "code-2", "predicate-1")
        self.assertEqual(differences(live, renamed), ("handler",))
