"""
All that operators do to a server, one after the other: twenty edits, each with its reload, that leave it as it was.

Fourteen generations are adopted in a round; four reloads are refused, each for another reason; two are dry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.subjects import QUICK, Harn, replace
from harn.testing.manifests import trigger_text
from harn.testing.server import Answer, wait_until

_RAISES = "raise RuntimeError('a module that cannot be imported')\n"


class Edits:
    """
    Edits one server's files, asks for reloads, and holds each answer to what it should be.

    :ivar adopted: generations that were adopted; ``refused``, ``dry``: reloads that were refused, and dry runs.
    :ivar times: how long each adopted one took, from the order to the report (ms).
    """

    def __init__(self, subject: Harn) -> None:
        self._subject = subject
        self._server = subject.server
        self._rounds = self._count = 0
        self._extra = ""
        self._extra_id = ""
        self.adopted = self.refused = self.dry = 0
        self.times: list[float] = []

    def round(self) -> Iterator[None]:
        """Make one round; yields after each edit."""
        self._rounds += 1
        end_of_ramp = self._finish if self._rounds % 2 else self._abort
        steps: tuple[Callable[[], None], ...] = (
            *(self._code, self._manifest, self._add, self._no_toml, self._code),
            *(self._ramp(end_of_ramp), self._dry, self._manifest, self._unknown_key, self._remove),
            *(self._code, self._rollback, self._confirmed, self._raising_module, self._hang_up),
            *(self._dry, self._no_secret, self._code, self._rollback, self._both),
        )
        for step in steps:
            self._count += 1
            step()
            yield

    # Edits

    def _edit_code(self) -> None:
        replace(self._subject.handlers, QUICK.replace("event.kind", str(self._count)))

    def _manifest_text(self, more: str = "") -> str:
        return self._subject.text(self._count % self._subject.triggers) + "\n" + self._extra + more

    def _edit_manifest(self, more: str = "") -> None:
        replace(self._subject.manifest, self._manifest_text(more))

    # What is adopted

    def _code(self) -> None:
        self._edit_code()
        self._reload("modified")

    def _manifest(self) -> None:
        self._edit_manifest()
        self._reload("modified")

    def _both(self) -> None:
        self._edit_code()
        self._edit_manifest()
        self._reload("modified")

    def _add(self) -> None:
        """Add a trigger of a name that there never was, and let it take part: so it has metrics."""
        self._extra_id = f"extra{self._count}"
        self._extra = trigger_text(self._extra_id, extra=f'path = "/hooks/{self._extra_id}"')
        self._edit_manifest()
        self._reload("added")
        for name in (self._extra_id, "t0"):
            accepted = self._server.deliver(f"/hooks/{name}", delivery=f"{name}-{self._count}")
            assert accepted.status == 200, accepted
        self._subject.wait_done()

    def _remove(self) -> None:
        self._extra = ""
        self._edit_manifest()
        self._reload("removed")

    def _confirmed(self) -> None:
        self._edit_manifest()
        self._reload("modified", "?confirm_within=60s")
        self._checked("POST", "/admin/confirm")

    def _ramp(self, end: Callable[[], None]) -> Callable[[], None]:
        def ramp() -> None:
            self._edit_manifest()
            self._reload("modified", "?ramp=50%25")
            for number in range(4):
                for trigger in range(self._subject.triggers):
                    taken = self._server.deliver(f"/hooks/t{trigger}", delivery=f"{self._count}-{trigger}-{number}")
                    assert taken.status == 200, taken
            end()

        return ramp

    def _finish(self) -> None:
        self._checked("POST", "/admin/ramps/finish")

    def _abort(self) -> None:
        self._checked("POST", "/admin/ramps/abort")

    def _rollback(self) -> None:
        self._adopt(self._server.admin("POST", "/admin/rollback"), "modified")

    def _hang_up(self) -> None:
        self._edit_code()
        before = self._server.generation()["generation"]
        began = time.perf_counter()
        self._server.signal(1)
        wait_until(lambda: self._server.state()["generation"] > before, "the reload that SIGHUP asked for")
        self.times.append((time.perf_counter() - began) * 1e3)
        self.adopted += 1

    # What is not

    def _dry(self) -> None:
        self._edit_code()
        answer = self._server.reload("?dry_run=true")
        assert answer.status == 200, answer
        assert len(answer.json()["plan"]["triggers"]) >= self._subject.triggers, answer.json()["plan"]
        self.dry += 1

    def _no_toml(self) -> None:
        self._refused_manifest(self._manifest_text()[:-40], "parse")

    def _unknown_key(self) -> None:
        self._refused_manifest(self._manifest_text(trigger_text("odd", extra="unknown = 1\n")), "validate")

    def _no_secret(self) -> None:
        self._refused_manifest(self._manifest_text(trigger_text("odd", secret="nowhere")), "resolve", "validate")

    def _raising_module(self) -> None:
        replace(self._subject.handlers, _RAISES)
        self._refused("resolve")
        self._edit_code()

    def _refused_manifest(self, text: str, *stages: str) -> None:
        replace(self._subject.manifest, text)
        self._refused(*stages)
        self._edit_manifest()

    # Asking

    def _reload(self, what: str, query: str = "") -> None:
        began = time.perf_counter()
        answer = self._server.reload(query)
        self.times.append((time.perf_counter() - began) * 1e3)
        self._adopt(answer, what)

    def _adopt(self, answer: Answer, what: str) -> None:
        assert answer.status == 200, answer
        assert answer.json()["summary"][what], answer.body
        self.adopted += 1

    def _refused(self, *stages: str) -> None:
        answer = self._server.reload()
        assert answer.status == 422, answer
        assert answer.json()["stage"] in stages, answer.body
        self.refused += 1

    def _checked(self, method: str, target: str) -> Any:
        answer = self._server.admin(method, target, {})
        assert answer.status == 200, answer
        return answer.json()
