"""The facade for plugin authors."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import harn.interfaces


class FacadeTests(SynchronousTestCase):
    """``harn.interfaces``."""

    def test_complete(self) -> None:
        """Every name that it promises is there, and it holds no public name that it does not promise."""
        promised = set(harn.interfaces.__all__)
        held = {name for name in vars(harn.interfaces) if not name.startswith("_")} - {"annotations"}
        self.assertEqual(held, promised)
