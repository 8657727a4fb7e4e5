"""Manifests of any size, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def trigger_text(
    trigger_id: str,
    *,
    provider: str = "github",
    kind: str = "webhook",
    handler: str = "handlers:on_event",
    events: Sequence[str] = ("issues.*",),
    secret: str | None = "webhook-secret",
    extra: str = "",
) -> str:
    """
    Write one ``[[triggers]]`` table.

    :param secret: name of ``signing_secret`` in the provider's namespace; None for no secrets.
    :param extra: further lines: keys first, then sub-tables such as ``[triggers.retry]``.
    """
    lines = [
        "[[triggers]]",
        f'id = "{trigger_id}"',
        f'kind = "{kind}"',
        f'provider = "{provider}"',
        "match = { events = [" + ", ".join(f'"{event}"' for event in events) + "] }",
        f'handler = "{handler}"',
    ]
    if secret is not None:
        lines.append(f'secrets = {{ signing_secret = "{provider}/{secret}" }}')
    if extra:
        lines.append(extra.rstrip("\n"))
    return "\n".join(lines) + "\n"


def manifest_text(
    count: int, *, changed: Iterable[int] = (), head: str = '[package]\nname = "demo"\n', extra: str = ""
) -> str:
    """
    Write a manifest of ``count`` triggers ``t0``, ``t1``, ... of about 260 bytes each.

    :param changed: indices of triggers that differ (in ``retry.max``) from those of a manifest without this.
    :param head: what stands before the triggers.
    :param extra: further lines of each trigger's own table.
    """
    different = frozenset(changed)
    texts = [head]
    for index in range(count):
        retry = f'[triggers.retry]\nmax = {4 if index in different else 3}\nbackoff = "svix"\n'
        texts.append(
            trigger_text(
                f"t{index}",
                events=("issues.opened", "issues.closed"),
                extra=f'path = "/hooks/t{index}"\n{extra}{retry}',
            )
        )
    return "\n".join(texts)
