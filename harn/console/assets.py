"""The style sheet, the script and the icon of the console: files of the package, nothing from elsewhere."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib import resources

from harn.console.answers import asset
from harn.console.sign_in import ROOT
from harn.errors import RouteUnknown
from harn.listener.problems import Response

TYPES = {
    "console.css": b"text/css; charset=utf-8",
    "console.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}
"""The files, with their content types."""


class Assets:
    """Holds the files, read once."""

    @cached_property
    def _files(self) -> dict[str, bytes]:
        folder = resources.files(__package__).joinpath("assets")
        return {name: folder.joinpath(name).read_bytes() for name in TYPES}

    def address(self, name: str) -> str:
        """Return the path of a file, which changes with its content, so that browsers may keep it."""
        return f"{ROOT}/assets/{hashlib.sha256(self._files[name]).hexdigest()[:12]}/{name}"

    def answer(self, name: str) -> Response:
        """
        Return a file.

        :raises RouteUnknown: there is none of this name.
        """
        if name not in TYPES:
            raise RouteUnknown(f"the console has no file {name!r}")
        return asset(self._files[name], TYPES[name])
