"""The tests of harn."""

from hypothesis import HealthCheck, settings

# A machine that is busy with something else says nothing about the code: no property test fails for being slow.
settings.register_profile("harn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("harn")
