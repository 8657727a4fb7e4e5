"""Secrets: from a reference in the manifest to bytes, through a chain of providers."""
