"""
Two deployers that race: each writes the manifest and reloads with the same ``If-Match``, at the same instant.

One must win (200), and the other get 412 with both tags, the one that it sent and the live one; with that, it tries
again and succeeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from attrs import frozen

from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import HEAD, Harn, harn_server
from harn.testing.manifests import manifest_text
from harn.testing.server import API_KEY, Answer


class Deployer:
    """One of the two, with a connection and a temporary file of its own. :ivar number: 0 or 1."""

    def __init__(self, subject: Harn, number: int) -> None:
        self.number = number
        self._subject = subject
        self._connection = subject.server.connect()
        self._fresh = Path(subject.manifest.parent, f"deployer-{number}.toml")

    def write(self, race: int) -> None:
        """Replace the manifest by its own of this race."""
        text = manifest_text(self._subject.triggers, head=HEAD, extra=f'timeout = "{1000 + 2 * race + self.number}s"\n')
        self._fresh.write_text(text)
        self._fresh.replace(self._subject.manifest)

    def reload(self, tag: str) -> Answer:
        """Reload if the live generation has this tag."""
        headers = {"Authorization": f"Bearer {API_KEY}", "If-Match": tag}
        return self._connection.request("POST", "/admin/reload", b"{}", headers)

    def deploy(self, race: int, tag: str, start: Barrier) -> Answer:
        """Write and reload, as soon as both are ready."""
        start.wait()
        self.write(race)
        return self.reload(tag)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@frozen(kw_only=True)
class Race:
    """
    The result of one race.

    :ivar winner: the deployer whose reload was adopted, None unless it was exactly one.
    :ivar informed: whether the other got both tags; ``again``: whether its second try succeeded.
    :ivar took: until both had their answers (ms).
    """

    winner: int | None
    informed: bool
    again: bool
    took: float


def run_race(subject: Harn, deployers: Sequence[Deployer], pool: ThreadPoolExecutor, number: int) -> Race:
    """Run both deployments at once."""
    tag = live_tag(subject)
    start = Barrier(len(deployers) + 1)
    running = [pool.submit(deployer.deploy, number, tag, start) for deployer in deployers]
    start.wait()
    began = time.perf_counter()
    answers = [each.result() for each in running]
    took = (time.perf_counter() - began) * 1e3
    if sorted(answer.status for answer in answers) != [200, 412]:
        return Race(winner=None, informed=False, again=False, took=took)
    won, lost = sorted(answers, key=lambda answer: answer.status)
    problem = lost.json()
    informed = problem["if_match"] == tag and problem["etag"] == won.headers["etag"] == live_tag(subject) != tag
    loser = deployers[answers.index(lost)]
    loser.write(number)
    again = loser.reload(problem["etag"]).status == 200
    return Race(winner=answers.index(won), informed=informed, again=again, took=took)


def live_tag(subject: Harn) -> str:
    """Request the tag of the live generation."""
    return subject.server.admin("GET", "/admin/generation").headers["etag"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks race", description=__doc__)
    parser.add_argument("--races", type=int, default=200)
    options = parser.parse_args(arguments)
    with harn_server() as subject, ThreadPoolExecutor(2) as pool:
        deployers = [Deployer(subject, number) for number in range(2)]
        races = [run_race(subject, deployers, pool, number) for number in range(options.races)]
        for deployer in deployers:
            deployer.close()
    table = Table(f"{options.races} races of two deployers", ("what", "figure"))
    for number in range(2):
        table.add(f"won by deployer {number}", str(sum(race.winner == number for race in races)))
    table.add("until both had their answers (ms)", spread([race.took for race in races]))
    table.show()
    goals = Goals()
    for what, count in (
        ("races in which exactly one was answered 200, the other 412", sum(race.winner is not None for race in races)),
        ("losers that got both tags", sum(race.informed for race in races)),
        ("losers that succeeded at their second try", sum(race.again for race in races)),
    ):
        goals.at_least(what, options.races, [float(count)], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
