"""What the kernel is asked for, in processes of their own."""

import subprocess
import sys
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

import harn

ASK = """
from harn.processes import adopt_orphans, adopts_orphans, close_memory, end_with_parent, is_memory_closed
print(is_memory_closed(), close_memory(), is_memory_closed())
print(adopts_orphans(), adopt_orphans(), adopts_orphans())
print(end_with_parent(9))
"""


@skipUnless(sys.platform == "linux", "only Linux has prctl")
class PrctlTests(SynchronousTestCase):
    """`harn.processes`."""

    def test_each(self) -> None:
        """Each request is granted, and seen afterwards."""
        root = Path(harn.__file__).parent.parent
        done = subprocess.run([sys.executable, "-c", ASK], cwd=root, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.split("\n"), ["False True True", "False True True", "True", ""])
