"""Interpreters in the server's process: what is reported of a call that cannot be ended."""

from __future__ import annotations

import sys
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from harn.errors import HandlerTimedOut
from harn.testing.calls import make_call
from harn.testing.interpreters import InterpreterCase
from harn.vm import inline
from harn.vm.calls import run_call
from harn.vm.inline import InlineInterpreters

STUCK = """
    import threading
    released = threading.Event()
    def stuck(event):
        released.wait(30)
        return 1
    def thread(event): return threading.current_thread().name
    async def async_thread(event): return threading.current_thread().name
    def fine(event): return __name__
"""


class InlineTests(InterpreterCase):
    """`InlineInterpreters`."""

    timeout = 180
    factory = staticmethod(lambda secrets: InlineInterpreters(reactor, secrets))

    def setUp(self) -> None:
        super().setUp()
        self.events = self.enterContext(capturedLogs())

    def release(self) -> None:
        """Release every stuck handler."""
        for name, module in list(sys.modules.items()):
            if name.startswith("_harn_inline_") and hasattr(module, "released"):
                module.released.set()

    async def test_stuck_call_is_reported(self) -> None:
        """A call over its time fails its attempt, which says where its thread is."""
        interpreter = await self.make(STUCK, "stuck")
        error = await self.failure(run_call(interpreter, make_call("stuck", timeout=0.05)), HandlerTimedOut)
        self.assertEqual(str(error), "ran longer than 0.05 s")
        self.assertIn("released.wait(30)", error.traceback)
        self.release()
        self.assertRegex(await self.result(interpreter, "fine"), r"^_harn_inline_\d+\.handlers$")

    async def test_one_thread(self) -> None:
        """Plain and async handlers run on the interpreter's one thread, which ends with it."""
        interpreter = await self.make(STUCK, "thread")
        names = {await self.result(interpreter, each) for each in ("thread", "async_thread")}
        (name,) = names
        self.assertIn(name, {thread.name for thread in threading.enumerate()})
        await interpreter.close()
        self.assertNotIn(name, {thread.name for thread in threading.enumerate()})

    async def test_close_does_not_wait_for_ever(self) -> None:
        """A thread that does not end is reported and abandoned."""
        self.patch(inline, "CLOSE_GRACE", 0.05)
        interpreter = await self.make(STUCK, "stuck")
        calling = run_call(interpreter, make_call("stuck"))
        await self.result_of_turns(interpreter)
        await interpreter.close()
        await self.failure(calling, Exception)
        self.assertTrue([event for event in self.events if "abandoned" in event.get("log_format", "")])
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("_harn_inline_")]
        self.release()
        for thread in threads:
            thread.join(10)

    async def result_of_turns(self, interpreter: Any) -> None:
        """Wait until the stuck handler has the thread."""
        while "released.wait" not in interpreter._stack():
            turned: Deferred[None] = Deferred()
            reactor.callLater(0, turned.callback, None)
            await turned
