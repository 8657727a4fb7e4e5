"""Benchmarks: the server beside a bare Klein route and a bare TOML parse, measured in the same run, as ratios."""
