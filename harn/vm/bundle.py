"""
A bundle: the local modules of one manifest, read once, content-addressed; and the names that each module imports.

Digests are of the bundle, and an interpreter imports local modules from it alone, never from disk or ``__pycache__``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import msgspec
from attrs import field, frozen

from harn.wire import digest_bytes, digest_value


@frozen(kw_only=True)
class Module:
    """
    One local module.

    :ivar name: dotted, as handlers import it.
    :ivar path: where its source was read; ``__file__`` and the path in tracebacks.
    :ivar source: the file's bytes.
    :ivar imports: names of the other modules of the bundle that its source imports (and the packages they lie in).
    :ivar import_names: every dotted name that its import statements may mean, local or not; saves parsing it again.
    :ivar digest: ``sha256:...`` of ``source``.
    """

    name: str
    path: str
    source: bytes = field(repr=False)
    is_package: bool
    imports: frozenset[str] = frozenset()
    import_names: tuple[str, ...] = field(default=(), repr=False)
    digest: str = field(init=False, repr=False)

    @digest.default
    def _digest(self) -> str:
        return digest_bytes(self.source)


@frozen(kw_only=True)
class Bundle:
    """
    :ivar bundle_id: ``sha256:...`` over the names, paths and sources of all modules, and ``included``.
    :ivar modules: by dotted name.
    :ivar included: modules that the manifest's ``include`` added: any other may import them in a way that does not
        show.
    :ivar root: the manifest's directory; of bundles that an earlier release stored, empty.
    """

    bundle_id: str
    modules: Mapping[str, Module] = field(repr=False)
    included: frozenset[str] = field(default=frozenset(), repr=False)
    root: str = ""
    _closures: dict[str, str] = field(factory=dict, init=False, repr=False, eq=False)


def make_bundle(modules: Mapping[str, Module], included: frozenset[str] = frozenset(), root: str = "") -> Bundle:
    """Make a bundle of modules, identified by their content."""
    content = [(each.name, each.path, each.is_package, each.digest) for each in sorted_modules(modules)]
    return Bundle(bundle_id=digest_value([content, sorted(included)]), modules=modules, included=included, root=root)


def sorted_modules(modules: Mapping[str, Module]) -> list[Module]:
    """Return the modules in the order of their names."""
    return [modules[name] for name in sorted(modules)]


def closure(bundle: Bundle, module: str) -> tuple[str, ...]:
    """
    Return the names of a module, of every local module that it imports, however deep, and of all that the manifest
    includes; sorted.

    :raises KeyError: the bundle has no such module.
    """
    todo = [bundle.modules[module].name, *bundle.included]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(bundle.modules[name].imports - found)
    return tuple(sorted(found))


def source_digest(bundle: Bundle, module: str) -> str:
    """
    Return the digest of a module's `closure`.

    :raises KeyError: the bundle has no such module.
    """
    known = bundle._closures.get(module)
    if known is None:
        modules = [bundle.modules[name] for name in closure(bundle, module)]
        content = [(each.name, each.is_package, each.digest) for each in modules]
        known = bundle._closures[module] = digest_value([module, content])
    return known


def bundle_files(bundle: Bundle) -> dict[str, str]:
    """Return the digest of each file by its path."""
    return {module.path: module.digest for module in bundle.modules.values()}


def changed_modules(old: Bundle, new: Bundle) -> tuple[str, ...]:
    """Return the files that differ between two bundles, including those that only one has, sorted."""
    before, after = bundle_files(old), bundle_files(new)
    return tuple(sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)))


class _PackedModule(msgspec.Struct, frozen=True, array_like=True):
    name: str
    path: str
    source: bytes
    is_package: bool
    imports: list[str]
    import_names: list[str]


class _Packed(msgspec.Struct, frozen=True, array_like=True, tag="harn-bundle-1"):
    modules: list[_PackedModule]
    included: list[str]
    root: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def encode_bundle(bundle: Bundle) -> bytes:
    """Encode for the store; equal bundles have equal bytes."""
    modules = [
        _PackedModule(each.name, each.path, each.source, each.is_package, sorted(each.imports), list(each.import_names))
        for each in sorted_modules(bundle.modules)
    ]
    return _encoder.encode(_Packed(modules, sorted(bundle.included), bundle.root))


def decode_bundle(data: bytes) -> Bundle:
    """
    Decode the bytes that `encode_bundle` returned.

    :raises msgspec.DecodeError: it is not an encoded bundle.
    """
    packed = _decoder.decode(data)
    modules = {
        each.name: Module(
            name=each.name,
            path=each.path,
            source=each.source,
            is_package=each.is_package,
            imports=frozenset(each.imports),
            import_names=tuple(each.import_names),
        )
        for each in packed.modules
    }
    return make_bundle(modules, frozenset(packed.included), packed.root)


_IMPORTING_CALLS = frozenset(("import_module", "__import__"))


def import_names(source: bytes, path: str, name: str, *, is_package: bool) -> tuple[str, ...]:
    """
    Return every module that ``source`` may import, wherever in it the import is.

    ``from a import b`` gives ``a`` and ``a.b``, since ``b`` may be a module; ``import a.b`` gives ``a`` and ``a.b``.
    ``importlib.import_module("a.b")`` with a string literal counts, and so do the names in a package's ``__all__``.

    :param path: for the message of a syntax error.
    :param name: the module's own dotted name, to which relative imports are relative.
    :return: absolute dotted names, each once, in order of their first appearance.
    :raises SyntaxError: with the line; a wrong encoding is one too.
    :raises ValueError: the source holds a null byte.
    :raises RecursionError: it nests deeper than the parser follows.
    """
    try:
        tree = ast.parse(source, path)
    except SystemError:
        # CPython counts depth for all threads together: a finalizer that formats a traceback (which parses) during this
        # parse upsets the count. The source is not at fault.
        tree = ast.parse(source, path)
    package = name if is_package else name.rpartition(".")[0]
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        for mentioned in _of_node(node, package, is_package=is_package):
            steps = mentioned.split(".")
            for length in range(1, len(steps) + 1):
                found.setdefault(".".join(steps[:length]))
    return tuple(found)


def _of_node(node: ast.AST, package: str, *, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node.module or "", node.level, package)
        if base:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        text = node.args[0]
        if called in _IMPORTING_CALLS and isinstance(text, ast.Constant) and isinstance(text.value, str):
            plain = text.value.lstrip(".")
            absolute = _absolute(plain, len(text.value) - len(plain), package)
            if all(step.isidentifier() for step in absolute.split(".")):
                yield absolute
    elif is_package and isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Tuple):
        names = node.value.elts if any(getattr(target, "id", "") == "__all__" for target in node.targets) else ()
        for each in names:
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
                yield f"{package}.{each.value}"


def _absolute(module: str, level: int, package: str) -> str:
    """Return the absolute name of a relative import; empty when it leaves its package."""
    if level == 0:
        return module
    steps = package.split(".") if package else []
    if level > len(steps):
        return ""
    base = steps[: len(steps) - level + 1]
    return ".".join([*base, module] if module else base)
