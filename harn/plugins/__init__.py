"""
The package in which connectors are found: a package that puts a module under ``harn/plugins/`` adds a provider. Such a
directory has no ``__init__.py``: this package extends over all of them, wherever they are installed.
"""

from __future__ import annotations

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
