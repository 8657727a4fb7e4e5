"""The manifest's file: read whole, once, and checked to be text."""

from __future__ import annotations

import os

from attrs import field, frozen

from harn.errors import ManifestInvalid
from harn.files import NotRegular, TooLarge, read_regular
from harn.model.problem import Problem

LARGEST = 64 * 1024 * 1024
"""Bytes: a bigger file is refused as a mistake."""


@frozen(kw_only=True)
class ManifestSource:
    """
    A manifest as bytes.

    :ivar path: absolute.
    :ivar shown: the file's name as the user typed it, for messages.
    """

    path: str
    data: bytes = field(repr=False)
    shown: str

    @classmethod
    def of(cls, path: str, data: bytes, shown: str | None = None) -> ManifestSource:
        """
        Make a source of ``data`` as the content of ``path``; without ``shown``, problems show the file's base name.
        """
        return cls(path=os.path.abspath(path), data=data, shown=shown or os.path.basename(path))

    def text(self) -> str:
        """
        Return the file as text, lines ending in a line feed.

        :raises ManifestInvalid: of stage ``parse``: it is empty, begins with a byte order mark, is not UTF-8, or
            holds a NUL.
        """
        if not self.data:
            raise self._unusable("the file is empty", "was it cut off while it was written?")
        if self.data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise self._unusable("begins with a byte order mark", "save it as UTF-8 without one", line=1)
        nul = self.data.find(b"\0")
        if nul >= 0:
            raise self._unusable("holds a NUL byte", "is it a text file?", line=self._line_at(nul))
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._unusable("is not UTF-8", "save it as UTF-8", line=self._line_at(error.start)) from None
        return text.replace("\r\n", "\n") if "\r" in text else text

    def _line_at(self, offset: int) -> int:
        return self.data.count(b"\n", 0, offset) + 1

    def _unusable(self, message: str, hint: str, *, line: int | None = None) -> ManifestInvalid:
        return ManifestInvalid([Problem(file=self.shown, line=line, message=message, hint=hint)], stage="parse")


def read_manifest(path: str, shown: str | None = None) -> ManifestSource:
    """
    Read the manifest at ``path``. Blocks: not for the reactor thread.

    :param shown: the path as the user typed it, where that differs.
    :raises ManifestInvalid: of stage ``parse``: it is missing, not a regular file, not readable, or over `LARGEST`.
    """
    shown = shown or path
    try:
        data = read_regular(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise _unreadable(shown, f"manifest not found: {shown}", "say where it is with --config") from None
    except NotRegular:
        raise _unreadable(shown, f"{shown} is not a regular file", "write the manifest to a file") from None
    except TooLarge:
        said = f"{shown} is larger than {LARGEST // 1024**2} MiB"
        raise _unreadable(shown, said, "is it a manifest?") from None
    except IsADirectoryError:
        raise _unreadable(shown, f"{shown} is a directory", "name the file in it, for example harn.toml") from None
    except OSError as error:
        raise _unreadable(shown, f"{shown} cannot be read: {error.strerror}", "check its owner and mode") from None
    return ManifestSource(path=os.path.abspath(path), data=data, shown=shown)


def _unreadable(shown: str, message: str, hint: str) -> ManifestInvalid:
    return ManifestInvalid([Problem(file=shown, message=message, hint=hint)], stage="parse")
