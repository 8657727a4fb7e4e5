"""
Pass on what trial prints, and say at its end which tests took longest.

Reads standard input: `trial | python .ci/slowest.py`, with trial's output unbuffered. A test's time is that between its
line and the one before it.
"""

import re
import sys
import time

SHOWN = 20
MODULE = re.compile(r"[A-Za-z_][\w.]*$")
CASE = re.compile(r"  ([A-Za-z_]\w*)$")
TEST = re.compile(r"    (\w+) \.\.\.\s+\[")


def main() -> None:
    """Read to the end."""
    module = case = ""
    took: list[tuple[float, str]] = []
    before = time.monotonic()
    for line in sys.stdin:
        sys.stdout.write(line)
        sys.stdout.flush()
        now = time.monotonic()
        test = TEST.match(line)
        if test:
            took.append((now - before, f"{module}.{case}.{test[1]}"))
        elif found := CASE.match(line):
            case = found[1]
        elif MODULE.match(line):
            module = line.strip()
        before = now
    print(f"\nThe {SHOWN} slowest of {len(took)} tests, which took {sum(each[0] for each in took):.0f} s in all:")
    for seconds, name in sorted(took, reverse=True)[:SHOWN]:
        print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    main()
