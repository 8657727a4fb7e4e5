"""A self-hosted orchestrator of events that reloads without dropping one."""

__version__ = "0.3.0"
