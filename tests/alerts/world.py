"""A server in the test's process with alerts, whose messages go to a sender that does as the test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import to_builtins
from twisted.internet.defer import Deferred
from zope.interface import implementer

from harn.alerts import feature
from harn.alerts.messages import AlertMessage
from harn.alerts.senders import AlertTarget, ISender, Senders
from harn.alerts.service import AlertService
from harn.errors import AlertNotSent
from harn.reload.interfaces import FirstServes
from tests.reload.world import World, fake

URL = "https://hooks.test/services/T0/B0/s3cr3tt0ken"
HEAD = "[orchestrator]\nallow_empty = true\n"


@implementer(ISender)
class ScriptedSender:
    """
    Records each message.

    :ivar sent: what was accepted. ``tried``: everything, at once.
    :ivar fails: the error of each try, while it is set.
    :ivar held: tries wait for `answer`.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[AlertTarget, AlertMessage]] = []
        self.tried: list[AlertMessage] = []
        self.fails: AlertNotSent | None = None
        self.held = False
        self._waiting: list[Deferred[None]] = []

    async def send(self, target: AlertTarget, message: AlertMessage) -> None:
        """See `ISender.send`."""
        self.tried.append(message)
        if self.held:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        if self.fails is not None:
            raise self.fails
        self.sent.append((target, message))

    def answer(self) -> None:
        """End the tries that wait."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Every message that was accepted."""
        return [to_builtins(message.document) for _, message in self.sent]

    def take(self) -> list[str]:
        """Return status, trigger and count of each message that was accepted since the last time."""
        found = [f"{each['status']} {each['on']} {each['count']}" for each in self.documents]
        self.sent.clear()
        return found


def alert(on: str, table: str = "triggers.alerts", **more: Any) -> str:
    """Write an alert of Slack."""
    lines = [f"[[{table}]]", f'on = "{on}"', 'to = "slack"', 'url_secret = "alerts/slack"']
    lines += [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in more.items()]
    return "\n".join(lines) + "\n"


def everywhere(on: str, **more: Any) -> str:
    """Write the head of a manifest with an alert of all triggers."""
    return HEAD + alert(on, "orchestrator.alerts", **more)


class AlertWorld(World):
    """See the module."""

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.environ["HARN_SECRET_ALERTS_SLACK"] = URL
        self.sender = ScriptedSender()
        self.server.add(Senders({"slack": self.sender, "webhook": self.sender, "email": self.sender}))
        feature.install_alerts(self.server)
        self.alerts = self.server[AlertService]

    def serves(self) -> None:
        """Emit that the first generation serves, and start the services in the background."""
        self.lifecycle.emit(FirstServes())
        self.server.background.startService()

    def die(self, trigger_id: str = "a", key: str = "d") -> str:
        """Make a delivery of a trigger a dead letter; return its event id."""
        taking = self.take(trigger_id, key)
        assert taking.called
        (event_id,) = taking.result.event_ids  # type: ignore[attr-defined]
        while self.calls:
            self.calls[-1].raises(_rejected())
            self.clock.advance(0)
        return str(event_id)

    def stopped(self) -> Deferred[None]:
        """End the background work, and the alerts."""
        self.server.background.stopService()
        return self.alerts.stopService()

    def restarted(self) -> AlertWorld:
        """End, and give another server on the same folder and store."""
        self.stopped()
        self.close()
        self.store.close()
        return AlertWorld(self.root, clock=self.clock, store=self.store)


def _rejected() -> Exception:
    from harn.errors import HandlerRejected

    return HandlerRejected("no")


__all__ = ["HEAD", "URL", "AlertWorld", "ScriptedSender", "alert", "everywhere", "fake"]
