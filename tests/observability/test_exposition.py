"""The exposition as a whole: it has no fault that the lint finds, and the metrics of the process are in it."""

from __future__ import annotations

import os

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.observability import exposition
from harn.observability.metrics import Metrics
from tests.observability.lint import findings

LINTED = """# HELP {name} Some.
# TYPE {name} {kind}
{name}{end} 1.0
"""


def family(metrics: Metrics, name: str) -> Metric:
    """Return one scraped family."""
    (found,) = (each for each in text_string_to_metric_families(metrics.render().decode()) if each.name == name)
    return found


class LintTests(SynchronousTestCase):
    """Each family is well formed."""

    def test_no_findings(self) -> None:
        """Names, units, types, help texts and labels of everything that is shown are as Prometheus wants them."""
        metrics = Metrics()
        counts = metrics.trigger("gh", "github")
        counts.sent["a2a", "failed"] = counts.dispatched_failed = 1
        counts.handler_seconds.observe(0.2)
        metrics.http_request("/gh", "POST", 200, 0.1, 3)
        metrics.append_observed("inbox", 0.1)
        metrics.backpressure("ingest", "admit")
        metrics.reload_finished("cli", "ok", {"parse": 0.1}, 2, 5.0, True)
        self.assertEqual(list(findings(metrics.render().decode())), [])

    def test_the_lint_finds(self) -> None:
        """A wrong prefix, end, unit, type or label is found, and so is a series that is there twice."""
        for name, kind, end, words in (
            ("inbox_size", "gauge", "", "must begin with harn_"),
            ("harn_things_total", "gauge", "", "must not end in _total"),
            ("harn_wait_milliseconds", "gauge", "", "base unit"),
            ("harn_wait", "summary", "", "must be a counter"),
            ("harn_wait", "gauge", '{sender="x"}', "unknown labels"),
            ("harn_wait", "gauge", '{state="a",action="b",method="c",topic="d"}', "more than 3"),
        ):
            found = list(findings(LINTED.format(name=name, kind=kind, end=end)))
            self.assertTrue(any(words in each for each in found), (words, found))
        twice = LINTED.format(name="harn_wait", kind="gauge", end="") + "harn_wait 2.0\n"
        self.assertTrue(any("twice" in each for each in findings(twice)))
        self.assertTrue(any("HELP and a TYPE" in each for each in findings("# TYPE harn_x gauge\nharn_x 1.0\n")))


class ProcessTests(SynchronousTestCase):
    """What the process is and uses."""

    def test_build(self) -> None:
        """The version is a label of a series that is always 1."""
        (sample,) = family(Metrics(), "harn_build_info").samples
        self.assertEqual((sample.value, sample.labels["version"]), (1.0, harn.__version__))

    def test_of_the_process(self) -> None:
        """CPU, memory, open files and the start are those of this process."""
        metrics = Metrics()
        names = ("process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds")
        for name in (*names, "process_start_time_seconds", "process_max_fds"):
            self.assertGreater(family(metrics, name).samples[0].value, 0, name)

    def test_files_that_may_not_be_listed(self) -> None:
        """Where the kernel closes the list of open files, its number is shown all the same, or nothing."""
        directory = self.mktemp()
        os.mkdir(directory)

        class Closed:
            def __init__(self, registry: object) -> None: ...

            def collect(self) -> list[Metric]:
                return [Metric("process_cpu_seconds", "CPU.", "counter")]

        self.patch(exposition, "ProcessCollector", Closed)
        self.patch(exposition, "DESCRIPTORS", directory)
        shown = {each.name: each for each in exposition.process_families()}
        self.assertEqual(shown["process_open_fds"].samples[0].value, os.stat(directory).st_size)
        self.patch(exposition, "DESCRIPTORS", directory + "/none")
        self.assertNotIn("process_open_fds", [each.name for each in exposition.process_families()])
