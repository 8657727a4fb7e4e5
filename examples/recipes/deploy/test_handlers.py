"""Run by `python -m unittest` in this folder: the handler with scripts of the test."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harn.testing.handlers import github, run_handler

EVENT = json.loads((Path(__file__).parent / "event.json").read_text())
"""What `harn send` posts, too."""
COMMIT = "6dcb09b5b57875f334f61aebed695e2e4193db5e"


class DeployTests(unittest.TestCase):
    def run_deploy(self, script, **changes):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "deploy.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        push = {**EVENT, **changes}
        with mock.patch("handlers.SCRIPT", path):
            return run_handler("handlers:deploy", github("push", body=push), when="handlers:is_main", timeout=20.0)

    def test_deploys(self):
        run = self.run_deploy('echo "deployed $1"')
        self.assertEqual(run.outcome, "success", run)
        self.assertEqual(run.result, {"commit": COMMIT, "output": [f"deployed {COMMIT}"]})

    def test_fails(self):
        run = self.run_deploy("echo no route to host >&2; exit 3")
        self.assertEqual((run.outcome, run.error_class), ("failed", "handler_error"))
        self.assertIn("ended with 3", run.error)
        self.assertIn("no route to host", str(run.exception))

    def test_busy(self):
        run = self.run_deploy("exit 75")
        self.assertEqual((run.error_class, run.retry_after), ("retry_after", 60))

    def test_other_branch(self):
        self.assertEqual(self.run_deploy("exit 1", ref="refs/heads/try").outcome, "skipped")

    def test_deleted_branch(self):
        self.assertEqual(self.run_deploy("exit 1", deleted=True, after="0" * 40).outcome, "skipped")

    def test_no_commit(self):
        run = self.run_deploy("touch /never", after="$(reboot)")
        self.assertEqual((run.outcome, run.error), ("denied", "not a commit: '$(reboot)'"))

    def test_environment(self):
        """The script gets no secret and no key by its environment."""
        with mock.patch.dict("os.environ", {"SECRET": "x"}):
            run = self.run_deploy("env | cut -d= -f1 | sort")
        self.assertEqual(set(run.result["output"]) - {"PATH", "HOME", "PWD", "SHLVL", "_", "OLDPWD"}, set())


if __name__ == "__main__":
    unittest.main()
