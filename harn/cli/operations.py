"""Every operation of a server, for what is made from all of them: the MCP tools, and the reference page."""

from __future__ import annotations

from typing import Any

from harn.alerts import operations as alert_operations
from harn.api_keys import operations as key_operations
from harn.backup import backups as backup_operations
from harn.circuits import operations as circuit_operations
from harn.deliveries import change_operations, job_operations
from harn.deliveries import operations as delivery_operations
from harn.dispatch import operations as dispatch_operations
from harn.history import operations as history_operations
from harn.listener import published_operations
from harn.operations.http import show_api
from harn.operations.model import Operation
from harn.orchestrator import operations as server_operations
from harn.reload import operations as reload_operations
from harn.rollout import operations as rollout_operations
from harn.schedules import operations as schedule_operations
from harn.servers import operations as servers_operations
from harn.statistics import operations as statistics_operations

OPERATIONS: tuple[Operation[Any, Any, Any], ...] = (
    *reload_operations.OPERATIONS,
    *history_operations.OPERATIONS,
    *published_operations.OPERATIONS,
    *rollout_operations.OPERATIONS,
    *circuit_operations.OPERATIONS,
    *schedule_operations.OPERATIONS,
    *alert_operations.OPERATIONS,
    *statistics_operations.OPERATIONS,
    *reload_operations.DRAIN_OPERATIONS,
    *server_operations.OPERATIONS,
    *servers_operations.OPERATIONS,
    *backup_operations.OPERATIONS,
    *key_operations.OPERATIONS,
    *dispatch_operations.OPERATIONS,
    *dispatch_operations.PAUSE_OPERATIONS,
    *delivery_operations.OPERATIONS,
    *delivery_operations.IMPORTING,
    *change_operations.OPERATIONS,
    *job_operations.OPERATIONS,
    show_api,
)
"""In the order of the reference page."""
