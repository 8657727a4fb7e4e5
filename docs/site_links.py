"""
Make of the pages a site: the hooks that mkdocs.yml names.

A Git host and the site differ in two things. Pages link to files beside ``docs``, which the site does not have: each
one that is linked is copied into it. And headings get the anchors that a Git host gives them, so that one link is right
in both.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).parent.parent
README = "README.md"
"""A page of this name would take the place of `index.md`; a link to it is reported as one that leads nowhere."""
OUTSIDE = re.compile(r"(?<=\]\()(?P<path>\.\./[^)#\s]*)")


def on_config(config: Any) -> Any:
    """Set how anchors are made of headings."""
    config["mdx_configs"].setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the files beside ``docs`` that a page links to."""
    linked = set()
    for page in files.documentation_pages():
        for found in OUTSIDE.finditer(page.content_string):
            path = outside(page.src_uri, found["path"])
            if path not in (None, README) and (ROOT / path).is_file():
                linked.add(path)
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page whose links to files beside ``docs`` lead to the copies; others are kept, and then checked."""

    def within(found: re.Match[str]) -> str:
        path = outside(page.file.src_uri, found["path"])
        if path is None or files.get_file_from_path(path) is None:
            return found["path"]
        return posixpath.relpath(path, posixpath.dirname(page.file.src_uri))

    return OUTSIDE.sub(within, markdown)


def outside(page: str, link: str) -> str | None:
    """Return the path of a linked file from the project's folder; None where it is one of ``docs``."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith(("docs/", "..")) else path
