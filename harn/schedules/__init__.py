"""Triggers that time starts: ticks of schedules. Public: `service`, `ticks`, `operations`, `feature`."""
