"""``harn connector``: check the connectors that a package brings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from harn.cli.options import with_json
from harn.cli.output import print_error, warn

if TYPE_CHECKING:
    from harn.testing.checking import CheckedPackage


@click.group()
def connector() -> None:
    """Help with writing a connector."""


@connector.command()
@click.argument("package")
@click.option("--provider", "providers", multiple=True, metavar="ID", help="Check only this provider; may be repeated.")
@with_json
def check(package: str, providers: tuple[str, ...], as_json: bool) -> None:
    """
    Run the suite that every connector must pass on those of PACKAGE.

    PACKAGE is the name of an installed module or distribution, for example harn.plugins.acme or harn-acme, or the
    folder of its source.
    """
    from harn.testing.checking import check_package

    found = check_package(package, providers)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show(found)
    sys.exit(0 if found.status == "ok" else 1)


def show(found: CheckedPackage) -> None:
    """Print the outcome of each connector, and each check that failed."""
    from harn.testing.checking import Outcome

    for warning in found.warnings:
        warn(f"warning: {warning}")
    for each in found.checked_connectors:
        counts = ", ".join(f"{each.count(outcome)} {outcome.value}" for outcome in Outcome)
        click.echo(f"{each.provider} ({each.module}; {', '.join(each.kinds)}): {counts}")
        for each_check in each.checks:
            if each_check.status is Outcome.FAILED:
                print_error(f"{each.provider}: {each_check.name}: {each_check.detail}")
    for problem in found.problems:
        print_error(problem)


class TestStep(msgspec.Struct, frozen=True):
    """
    One program that ``harn connector test`` ran.

    :ivar status: ``passed``, ``failed`` or ``skipped``.
    :ivar exit_code: None where it was skipped.
    """

    name: str
    status: str
    command: tuple[str, ...] = ()
    exit_code: int | None = None
    duration_ms: float = 0.0
    stdout: str = ""
    stderr: str = ""
    details: str = ""


class Tested(msgspec.Struct, frozen=True):
    """The result of ``harn connector test``; ``summary`` counts the steps by status."""

    package: str
    status: str
    summary: dict[str, int]
    checks: tuple[TestStep, ...]


@connector.command()
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
@with_json
def test(folder: str, as_json: bool) -> None:
    """Check the connectors in FOLDER (default: this one), and run its own tests with trial."""
    root = Path(folder).resolve()
    steps = (
        run_step("suite", (sys.executable, "-m", "harn", "connector", "check", str(root)), root),
        test_step(root),
    )
    summary = {status: sum(step.status == status for step in steps) for status in ("passed", "failed", "skipped")}
    tested = Tested(folder, "failed" if summary["failed"] else "ok", summary, steps)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(tested)).decode())
    else:
        for step in steps:
            click.echo(f"{step.name}: {step.status}{f' ({step.details})' if step.details else ''}")
            if step.status == "failed":
                warn((step.stdout + step.stderr).rstrip())
    sys.exit(1 if summary["failed"] else 0)


def test_step(root: Path) -> TestStep:
    """Run the tests of a folder: its package ``tests``, else every ``test_*.py`` in it."""
    names = ("tests",) if (root / "tests").is_dir() else tuple(sorted(file.stem for file in root.glob("test_*.py")))
    if not names:
        return TestStep("tests", "skipped", details="there is neither a folder tests nor a test_*.py")
    with tempfile.TemporaryDirectory(prefix="harn-connector-test-") as scratch:
        command = (sys.executable, "-m", "twisted.trial", f"--temp-directory={scratch}/trial", *names)
        return run_step("tests", command, root)


def run_step(name: str, command: tuple[str, ...], root: Path) -> TestStep:
    """Run a program in a folder whose modules can be imported, and wait for its end."""
    from harn.testing.checking import source_root

    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join(os.path.abspath(str(entry)) for entry in (source_root(root), root, *inherited))
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603 - our own interpreter, and names that are one argument each
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return TestStep(
        name,
        "failed" if done.returncode else "passed",
        command,
        done.returncode,
        round((time.monotonic() - began) * 1000, 1),
        done.stdout,
        done.stderr,
    )
