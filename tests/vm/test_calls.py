"""What an interpreter says of a call, as the server takes it; and which functions a reference may name."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ResultInvalid, ResultTooLarge
from harn.model.exchange import Returned
from harn.vm.calls import outcome_of
from harn.vm.child.functions import Functions, Unusable
from harn.vm.frames import LARGEST_RESULT, Done, Source
from harn.vm.imports import Scope
from tests.vm.examples import Unobserved


class ReturnedTests(SynchronousTestCase):
    """`outcome_of`."""

    def test_json(self) -> None:
        """JSON is taken as it is, and no result stays no result."""
        for result in (None, b"null", b'{"a":[1,2.5,"\xc3\xa9"]}', b'"%s"' % (b"x" * (LARGEST_RESULT - 2))):
            self.assertEqual(outcome_of(Done(1, result)), Returned(result))

    def test_anything_else(self) -> None:
        """A value that is not JSON, or too much of it, fails with a class of its own, however it came here."""
        for result in (b"", b"NaN", b'{"a":', b"1 2", b'"\xff"', b"{1:2}", b"[" * 200_000 + b"]" * 200_000):
            self.assertIsInstance(outcome_of(Done(1, result)), ResultInvalid)
        self.assertIsInstance(outcome_of(Done(1, b'"%s"' % (b"x" * LARGEST_RESULT))), ResultTooLarge)


class ReferenceTests(SynchronousTestCase):
    """`Functions`."""

    def functions(self, source: Any) -> Any:
        """Return the functions of module ``handlers``."""
        scope = Scope([Source("handlers", "handlers.py", source.encode(), False)], f"outcomes_{id(source)}")
        scope.install()
        self.addCleanup(scope.remove)
        return Functions(scope, Unobserved())

    def test_what_every_module_has(self) -> None:
        """What the module type brings, and no code of the module's own, names no handler."""
        functions = self.functions("def f(event): pass\n")
        for name in ("__class__", "__init__", "__getattribute__", "__dir__", "__repr__"):
            error = self.assertRaises(Unusable, functions.get, f"handlers:{name}")
            self.assertIn("has no function", str(error))
        self.assertFalse(functions.get("handlers:f").wants_context)

    def test_names_made_when_asked_for(self) -> None:
        """A module may make functions in its ``__getattr__``; what that raises is said."""
        source = "def __getattr__(name):\n    if name == 'f': return lambda event: 1\n    raise AttributeError(name)\n"
        functions = self.functions(source)
        self.assertEqual(functions.get("handlers:f").call(None), 1)
        self.assertIn("no function", str(self.assertRaises(Unusable, functions.get, "handlers:g")))
        functions = self.functions("def __getattr__(name): raise SystemExit(3)\n")
        self.assertIn("SystemExit: 3", str(self.assertRaises(Unusable, functions.get, "handlers:f")))
