"""What the environment says about traces."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.event_trace import ALWAYS_OFF, RATIO, Sampler
from harn.traces.settings import ASKING, TelemetrySettings, read_settings, shown_url

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def read(**environ: str) -> TelemetrySettings:
    """Return settings that are there."""
    settings = read_settings(environ)
    assert settings is not None
    return settings


class AskingTests(SynchronousTestCase):
    """Whether something is exported, and where to."""

    def test_nothing_is_asked_for(self) -> None:
        """Without an endpoint nothing is exported, whatever else is set; nor where the SDK is disabled."""
        for environ in (
            {},
            {ENDPOINT: ""},
            {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
            {ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "True"},
        ):
            self.assertIsNone(read_settings(environ), environ)

    def test_endpoints(self) -> None:
        """The general endpoint is a base, one of a signal a whole URL; harn's own name counts where neither is."""
        for environ, traces, metrics in (
            ({ENDPOINT: "http://c:4318/"}, "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
            ({ENDPOINT: "https://c/otlp"}, "https://c/otlp/v1/traces", "https://c/otlp/v1/metrics"),
            ({"HARN_OTEL_ENDPOINT": "http://c:1"}, "http://c:1/v1/traces", "http://c:1/v1/metrics"),
            ({"HARN_OTEL_ENDPOINT": "http://c:1/v1/traces"}, "http://c:1/v1/traces", "http://c:1/v1/metrics"),
            ({"HARN_OTEL_ENDPOINT": "http://c:1", ENDPOINT: "http://d"}, "http://d/v1/traces", "http://d/v1/metrics"),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "http://c/t", None),
            ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/m"}, None, "http://c/m"),
            ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces", None),
            ({ENDPOINT: "http://c", "OTEL_METRICS_EXPORTER": "none"}, "http://c/v1/traces", None),
            ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "none"}, None, "http://c/v1/metrics"),
        ):
            settings = read(**environ)
            self.assertEqual((settings.traces_url, settings.metrics_url), (traces, metrics), environ)
            self.assertEqual(settings.warnings, ())

    def test_malformed_endpoints(self) -> None:
        """What cannot be sent is named, without a password, and is not exported."""
        for value in ("collector:4318", "ftp://c", "http://", "http://c:port", "http://[::1", "http://c:0"):
            settings = read(**{ENDPOINT: value})
            self.assertEqual((settings.traces_url, settings.metrics_url), (None, None), value)
            self.assertIn("must be a URL such as http://localhost:4318", settings.warnings[0])
        (warning, _) = read(**{ENDPOINT: "ftp://me:s3cret@c"}).warnings
        self.assertNotIn("s3cret", warning)
        self.assertEqual(shown_url("http://me:s3cret@c:4318/v1/traces?key=s3cret"), "http://c:4318/v1/traces")

    def test_protocols(self) -> None:
        """OTLP is sent by HTTP; any other protocol is named, with what to set."""
        self.assertEqual(read(**{ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}).warnings, ())
        settings = read(**{ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
        self.assertEqual((settings.traces_url, settings.metrics_url), (None, None))
        self.assertIn("OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf, got 'grpc'", settings.warnings[0])
        self.assertIn("4318", settings.warnings[0])
        settings = read(**{ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "zipkin"})
        self.assertIn("must be otlp or none, got 'zipkin'", settings.warnings[0])


class DetailTests(SynchronousTestCase):
    """Headers, names, samplers and bounds."""

    def test_headers(self) -> None:
        """Harn's own are divided by commas, semicolons or line ends; a malformed one is named by its place only."""
        settings = read(**{ENDPOINT: "http://c", "HARN_OTEL_HEADERS": "A=b, c = d=e;x\nauthorization=s3cret"})
        self.assertEqual(settings.headers, {"a": "b", "c": "d=e", "authorization": "s3cret"})
        self.assertEqual(settings.warnings, ("HARN_OTEL_HEADERS: entry 3 must be name=value; it is left out",))
        self.assertNotIn("s3cret", repr(settings))

    def test_what_the_exporters_read(self) -> None:
        """Mistakes in the variables that the SDK reads itself are named as well; of headers only the place."""
        for name, value, warning in (
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b, s3cret ,=c", "entry 2 must be name=value; it is left out"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3cret", "entry 1 must be name=value; it is left out"),
            (
                "OTEL_EXPORTER_OTLP_COMPRESSION",
                "lzw",
                "must be one of none, gzip, deflate, got 'lzw'; using none",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "must be seconds, got '10s'; using 10"),
        ):
            settings = read(**{ENDPOINT: "http://c", name: value})
            self.assertEqual(settings.warnings[0], f"{name}: {warning}")
            self.assertNotIn("s3cret", repr(settings))
        good = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,a=b", "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5"}
        self.assertEqual(read(**{ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP", **good}).warnings, ())

    def test_service_name(self) -> None:
        """The standard's variables come first."""
        for environ, name in (
            ({}, "harn-orchestrator"),
            ({"HARN_OTEL_SERVICE_NAME": "own"}, "own"),
            ({"HARN_OTEL_SERVICE_NAME": "own", "OTEL_SERVICE_NAME": "std"}, "std"),
            ({"HARN_OTEL_SERVICE_NAME": "own", "OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=res"}, None),
        ):
            self.assertEqual(read(**{ENDPOINT: "http://c", **environ}).service_name, name, environ)

    def test_samplers(self) -> None:
        """Those of the standard, with a ratio where they take one."""
        for name, argument, sampler in (
            ("", "", Sampler()),
            ("always_off", "", Sampler(ALWAYS_OFF, follows_sender=False)),
            ("parentbased_always_off", "", Sampler(ALWAYS_OFF)),
            ("parentbased_traceidratio", "0.25", Sampler(RATIO, 0.25)),
            ("traceidratio", "", Sampler(RATIO, 1.0, follows_sender=False)),
        ):
            environ = {ENDPOINT: "http://c", "OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
            settings = read(**environ)
            self.assertEqual((settings.sampler, settings.warnings), (sampler, ()), name)
        settings = read(**{ENDPOINT: "http://c", "OTEL_TRACES_SAMPLER": "jaeger_remote"})
        self.assertEqual(settings.sampler, Sampler())
        self.assertIn("must be one of always_on, always_off", settings.warnings[0])
        for ratio in ("2", "-0.1", "nan", "half"):
            environ = {ENDPOINT: "http://c", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
            settings = read(**environ)
            self.assertEqual(settings.sampler.ratio, 1.0)
            self.assertIn("must be a number from 0 to 1", settings.warnings[0])

    def test_bounds(self) -> None:
        """Numbers of 1 or more, in milliseconds where they are times; a batch is at most what may wait."""
        settings = read(
            **{
                ENDPOINT: "http://c",
                "OTEL_BSP_MAX_QUEUE_SIZE": "100",
                "OTEL_BSP_SCHEDULE_DELAY": "250",
                "OTEL_METRIC_EXPORT_INTERVAL": "1500",
            }
        )
        bounds = settings.batching
        self.assertEqual((bounds.most_waiting, bounds.batch, bounds.delay), (100, 100, 0.25))
        self.assertEqual((settings.interval, settings.warnings), (1.5, ()))
        self.assertEqual(read(**{ENDPOINT: "http://c", "HARN_OTEL_SPAN_PROCESSOR": "simple"}).batching.delay, 0.0)
        for wrong in ("0", "-1", "many", "1" * 10, "1.5", "٣"):
            settings = read(**{ENDPOINT: "http://c", "OTEL_BSP_MAX_QUEUE_SIZE": wrong})
            self.assertEqual(settings.batching.most_waiting, 8192)
            self.assertIn("must be a whole number of 1 or more", settings.warnings[0])
        (warning,) = read(**{ENDPOINT: "http://c", "HARN_OTEL_SPAN_PROCESSOR": "none"}).warnings
        self.assertIn("must be batch or simple", warning)

    @given(st.dictionaries(st.sampled_from((*ASKING, "OTEL_EXPORTER_OTLP_PROTOCOL", "HARN_OTEL_HEADERS")), st.text()))
    def test_anything(self, environ: Any) -> None:
        """Whatever is set, nothing is raised, and what is exported goes to a URL."""
        settings = read_settings(environ)
        if settings is not None:
            for url in (settings.traces_url, settings.metrics_url):
                self.assertTrue(url is None or url.startswith(("http://", "https://")), url)
