"""Metrics of the process itself: what it uses, since when it runs, and which versions it is made of."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

import harn
import twisted

_VERSIONS = ("version", "python", "twisted")
_DESCRIPTORS = "/proc/self/fd"


def process_families() -> Iterator[Metric]:
    """
    Yield ``harn_build_info`` and, where there is a ``/proc``, ``process_*``. Reads files of the kernel.

    A server whose memory is closed to other users may not list its own open files; newer kernels tell their number.
    """
    built = GaugeMetricFamily(
        "harn_build_info", "1, with the versions as labels.", labels=("version", "python", "twisted")
    )
    built.add_metric((harn.__version__, platform.python_version(), twisted.__version__), 1.0)
    yield built
    families = list(ProcessCollector(registry=None).collect())
    yield from families
    if families and not any(family.name == "process_open_fds" for family in families):
        try:
            count = os.stat(_DESCRIPTORS).st_size
        except OSError:
            return
        if count:
            yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors.", value=float(count))
