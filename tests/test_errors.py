"""The errors that carry more than a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ManifestInvalid
from harn.model.problem import Problem

PROBLEMS = st.lists(
    st.builds(
        Problem,
        file=st.sampled_from(("harn.toml", "h.py", "environment")),
        line=st.none() | st.integers(1, 5),
        message=st.sampled_from("ab"),
    ),
    min_size=1,
)


class ManifestInvalidTests(SynchronousTestCase):
    """`ManifestInvalid`."""

    @given(PROBLEMS)
    def test_order(self, problems: list[Problem]) -> None:
        """Whoever finds them in whatever order, problems come file by file, from the top, each once; none is lost."""
        found = ManifestInvalid(problems).problems
        self.assertEqual(sorted(map(str, found)), sorted(map(str, set(problems))))
        files = [problem.file for problem in found]
        self.assertEqual(list(dict.fromkeys(files)), list(dict.fromkeys(problem.file for problem in problems)))
        for file in set(files):
            lines = [problem.line or 0 for problem in found if problem.file == file]
            self.assertEqual(lines, sorted(lines))
            first = files.index(file)
            self.assertEqual(files[first : first + len(lines)], [file] * len(lines))
