"""What handlers log through ``logging``, and what is taken out of their output, in both kinds of interpreters."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.logger import capturedLogs

from harn.errors import HandlerRaised
from harn.observability.logs import threshold
from harn.testing.calls import make_call
from harn.testing.interpreters import InterpreterCase, InterpretersFactory
from harn.vm.calls import run_call
from harn.vm.inline import InlineInterpreters
from harn.vm.process import ChildInterpreters


class RecordTests(InterpreterCase):
    """In a process of its own."""

    factory: InterpretersFactory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    async def test_records_of_logging(self) -> None:
        """Records of ``logging`` have their level, logger and extra fields, and the ids of their call."""
        events = self.enterContext(capturedLogs())
        interpreter = await self.make()
        await self.result(interpreter, "logs_records")
        found = [event for event in events if event.get("stream") == "log"]
        said = [(event["log_level"].name, event["text"].partition("\n")[0]) for event in found]
        self.assertEqual(
            said,
            [
                ("info", "paid 3 of EUR"),
                ("critical", "stop"),
                ("warn", "'%d' with 1 arguments cannot be logged: TypeError"),
                ("error", "lost"),
            ],
        )
        self.assertEqual(found[0]["fields"], {"logger": "shop.orders", "order": "o-1"})
        self.assertIn('raise KeyError("amount")', found[3]["text"])
        ids = {(event["binding"], event["trigger_id"], event["event_id"], event["trace_id"]) for event in found}
        self.assertEqual(ids, {("gh@v2", "gh", "trigger_evt_1", "trace_1")})

    async def test_level(self) -> None:
        """While the server logs debug records, those of handlers come too, also after a change of the level."""
        events = self.enterContext(capturedLogs())
        self.addCleanup(threshold.change, threshold.level)
        interpreter = await self.make()
        for level, expected in (("info", 0), ("debug", 1), ("warn", 0)):
            threshold.change(level)
            before = len(events)
            await self.result(interpreter, "logs_records")
            found = [event for event in events[before:] if event.get("text") == "unseen"]
            self.assertEqual(len(found), expected, level)

    async def test_secrets_are_taken_out(self) -> None:
        """A secret that a handler fetched is in nothing that it prints, logs or raises."""
        events = self.enterContext(capturedLogs())
        interpreter = await self.make()
        error = await self.failure(run_call(interpreter, make_call("leaks")), HandlerRaised)
        self.assertEqual(str(error), "ValueError: 401 for https://x?token=[redacted]")
        self.assertIn("[redacted]", error.traceback)
        self.assertNotIn("gehéim", error.traceback)
        found = [event for event in events if "stream" in event]
        self.assertEqual(found[0]["text"], "sent [redacted]")
        self.assertEqual(found[0]["fields"], {"url": "https://x?token=[redacted]"})


class InlineRecordTests(RecordTests):
    """In the server's process."""

    factory = staticmethod(lambda secrets: InlineInterpreters(reactor, secrets))
