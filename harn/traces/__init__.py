"""Traces and metrics to a collector of OpenTelemetry: spans of deliveries, and the batches in which they are sent."""
