"""Differences between two generations: earlier ones, the live one, or a planned one."""
