"""Figures of triggers for operators: totals over restarts, backlogs, rates and percentiles; and gauges of them."""
