"""``--watch``: which changes of files lead to a reload, and which do not."""

from __future__ import annotations

import os
from pathlib import Path

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text


class WatchTests(ServerCase):
    """A server that watches its files."""

    def reloads(self, server: ServerProcess) -> list[str]:
        """Name the sources of the reloads so far, the first start left out."""
        records = server.records("orchestrator.manifest")
        return [each["payload"]["source"] for each in records if each["payload"]["source"] != "start"]

    def test_edits(self) -> None:
        """An edit in place, an atomic rename and an edit of a handler's module each lead to one reload."""
        server = self.serve("--watch")
        (self.directory / "harn.toml").write_text(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.wait_generation(server, 2)
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 3"))
        self.wait_generation(server, 3)
        self.write_handlers("two")
        self.wait_generation(server, 4)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v4")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["version"], "two")
        self.assertEqual(set(self.reloads(server)), {"file_watch"})
        self.assertEqual(server.generation()["source"], "file_watch")

    def test_what_does_not_count(self) -> None:
        """Touched files, other files beside them, and the state directory's own writes lead to no reload."""
        server = self.serve("--watch", state_dir="state")
        os.utime(self.directory / "harn.toml")
        os.utime(self.directory / "handlers.py")
        self.write("notes.txt", "not ours")
        for index in range(20):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}"))
        self.write_handlers("two")
        self.wait_generation(server, 2)
        self.assertEqual(self.reloads(server), ["file_watch"])

    def test_broken_and_mended(self) -> None:
        """A broken manifest is turned away and reported; the mended one is adopted by itself."""
        server = self.serve("--watch")
        self.write("harn.toml", "nonsense [")
        self.wait_last_reload(server, lambda last: last["status"] == "error" and last["source"] == "file_watch")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.wait_generation(server, 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")

    def test_symlink_swap(self) -> None:
        """The swap of a directory behind symbolic links, as Kubernetes mounts a ConfigMap, leads to a reload."""
        self.write_handlers()
        for version, maximum in (("a", 2), ("b", 3)):
            self.write(f"..{version}/harn.toml", trigger_text("gh", extra=f"[triggers.retry]\nmax = {maximum}"))
            self.write(f"..{version}/handlers.py", (self.directory / "handlers.py").read_text())
        (self.directory / "handlers.py").unlink()
        data = self.directory / "..data"
        data.symlink_to("..a")
        for name in ("harn.toml", "handlers.py"):
            (self.directory / name).symlink_to(Path("..data") / name)
        server = self.serve("--watch")
        beside = self.directory / "..data_tmp"
        beside.symlink_to("..b")
        beside.replace(data)
        self.wait_generation(server, 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")

    def test_credential_file(self) -> None:
        """A file of keys that changes leads to a reload by itself."""
        keys = self.write("keys/admin", "first\n")
        del self.environ["HARN_ORCHESTRATOR_API_KEYS"]
        self.environ["HARN_ORCHESTRATOR_API_KEYS_FILE"] = str(keys)
        server = self.serve("--watch")
        keys.write_text("second\n")
        wait_until(lambda: server.admin("GET", "/admin/generation", key="second").status == 200, "the new key")
        self.assert_problem(server.admin("GET", "/admin/generation", key="first"), 401)

    def test_new_module(self) -> None:
        """A module that an edit of the manifest brings in is watched from then on."""
        server = self.serve("--watch")
        self.write("fresh.py", "from handlers import on_event\n")
        self.write_manifest(trigger_text("gh", handler="fresh:on_event"))
        self.wait_generation(server, 2)
        self.write("fresh.py", "from handlers import on_event\nEDITED = True\n")
        self.wait_generation(server, 3)

    def test_manifest_that_goes_and_comes(self) -> None:
        """A manifest that is deleted changes nothing; one that comes back with other triggers is adopted."""
        server = self.serve("--watch")
        (self.directory / "harn.toml").unlink()
        wait_until(lambda: server.generation()["drift"], "the server to see that it is gone")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.wait_generation(server, 2)
