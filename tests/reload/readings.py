"""Manifests and modules in a folder, read as a reload reads them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from harn.history.differences import Recorded
from harn.manifest.load import check_document
from harn.manifest.source import ManifestSource
from harn.reload.build import installed_rules
from harn.reload.inputs import ExternalInputs, Inputs, read_inputs

HEAD = "[orchestrator]\nallow_empty = true\n"
HANDLERS = "def on_event(event):\n    return 1\n"
KEY = b"k" * 32


class Folder:
    """
    A folder with a manifest and modules.

    :ivar environ: where secrets come from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True)
        self.environ = {
            "HARN_SECRET_GITHUB_WEBHOOK_SECRET": "s-1",
            "HARN_SECRET_GITHUB_OTHER": "s-1",
            "HARN_SECRET_WEBHOOK_KEY": "w-1",
        }
        self.rules = installed_rules()
        self.write(handlers=HANDLERS)

    def write(self, **modules: str) -> None:
        """Write modules."""
        for name, text in modules.items():
            (self.root / f"{name}.py").write_text(textwrap.dedent(text), "utf-8")

    def path(self, name: str) -> str:
        """Return a file's path."""
        return str(self.root / name)

    def read(self, *triggers: str, head: str = HEAD, previous: Inputs | None = None) -> Inputs:
        """Write the manifest, and read everything."""
        data = (head + "\n" + "\n".join(triggers)).encode()
        source = ManifestSource.of(self.path("harn.toml"), data, "harn.toml")
        loaded = check_document(source, None if previous is None else previous.loaded, self.rules)
        external = ExternalInputs(environ=dict(self.environ), hash_key=KEY)
        return read_inputs(loaded, external, previous)

    def record(self, number: int, *triggers: str, head: str = HEAD) -> Recorded:
        """Write the manifest, and give what a generation of it would be recorded as."""
        inputs = self.read(*triggers, head=head)
        text = (head + "\n" + "\n".join(triggers)).encode()
        return Recorded(number=number, text=text, bundle=inputs.bundle, manifest=inputs.manifest)
