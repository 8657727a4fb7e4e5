"""Observability of a running server: metrics and logs."""
