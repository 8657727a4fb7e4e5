"""Signature schemes of providers: one module a scheme, each a pure function of plain values."""
