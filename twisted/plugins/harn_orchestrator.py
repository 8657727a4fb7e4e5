"""Makes ``twistd harn-orchestrator`` known to twistd."""

from twisted.application.service import ServiceMaker

orchestrator = ServiceMaker(
    "harn-orchestrator",
    "harn.tap",
    "A self-hosted orchestrator of events that reloads without dropping one.",
    "harn-orchestrator",
)
