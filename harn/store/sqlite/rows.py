"""
Many rows in one statement.

Each call of SQLite lets go of Python's interpreter lock and has to win it back from a busy reactor thread, so a batch
is written with few calls rather than one for each row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

MOST_ROWS = 32
"""Rows of one statement. Each number of rows is a prepared statement of its own, some 30 KB at this size."""


def execute_rows(
    connection: sqlite3.Connection,
    head: str,
    width: int,
    values: Sequence[Any],
    tail: str = "",
    tail_values: Sequence[Any] = (),
) -> int:
    """
    Run ``head``, a ``VALUES`` list, ``tail``.

    :param width: values in a row.
    :param values: those of all rows, one after the other.
    :return: how many rows of the database were changed.
    """
    most = MOST_ROWS * width
    if len(values) <= most:
        statement = _statement(head, width, len(values) // width, tail)
        return connection.execute(statement, [*values, *tail_values] if tail_values else values).rowcount
    changed = 0
    for start in range(0, len(values), most):
        part = values[start : start + most]
        statement = _statement(head, width, len(part) // width, tail)
        changed += connection.execute(statement, [*part, *tail_values]).rowcount
    return changed


@cache
def _statement(head: str, width: int, rows: int, tail: str) -> str:
    row = "(" + ", ".join("?" * width) + ")"
    return head + ", ".join([row] * rows) + tail
