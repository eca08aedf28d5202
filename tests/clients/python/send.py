#!/usr/bin/env python3
"""Sends one trace, logs and every metric kind the official SDK knows over OTLP; prints what was sent as JSON.

The five-line form, as in the README: python send.py (gRPC to http://127.0.0.1:4317).
"""

import argparse
import json
import time

import grpc
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", help="default: port 4317 (grpc) or 4318 (http) on 127.0.0.1")
    parser.add_argument("--protocol", choices=["grpc", "http"], default="grpc")
    parser.add_argument("--compression", choices=["none", "gzip"], default="none")
    parser.add_argument("--run-id", default="python")
    parser.add_argument("--api-key")
    return parser.parse_args()


def exporters(args):
    """The three exporters of a protocol, set up alike."""
    headers = {"authorization": f"Bearer {args.api_key}"} if args.api_key else None
    if args.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        compression = grpc.Compression.Gzip if args.compression == "gzip" else grpc.Compression.NoCompression
        common = dict(endpoint=args.endpoint or "http://127.0.0.1:4317", insecure=True)
        urls = {signal: {} for signal in ("traces", "logs", "metrics")}
    else:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        compression = Compression.Gzip if args.compression == "gzip" else Compression.NoCompression
        base = args.endpoint or "http://127.0.0.1:4318"
        common = {}
        urls = {signal: {"endpoint": f"{base}/v1/{signal}"} for signal in ("traces", "logs", "metrics")}
    common |= dict(headers=headers, timeout=10, compression=compression)
    return (
        OTLPSpanExporter(**common, **urls["traces"]),
        OTLPLogExporter(**common, **urls["logs"]),
        OTLPMetricExporter(**common, **urls["metrics"]),
    )


class Recorder(SpanExporter):
    """Remembers what the SDK exported, so that the test can compare."""

    def __init__(self):
        self.spans = []

    def export(self, spans):
        self.spans += [
            {
                "name": s.name,
                "trace_id": f"{s.context.trace_id:032x}",
                "span_id": f"{s.context.span_id:016x}",
                "parent_span_id": f"{s.parent.span_id:016x}" if s.parent else None,
                "kind": s.kind.name.lower(),
                "status": s.status.status_code.name.lower(),
                "start_unix_nano": str(s.start_time),
                "end_unix_nano": str(s.end_time),
                "attributes": {k: list(v) if isinstance(v, tuple) else v for k, v in s.attributes.items()},
                "events": [e.name for e in s.events],
                "links": [f"{link.context.span_id:016x}" for link in s.links],
            }
            for s in spans
        ]
        return SpanExportResult.SUCCESS


def send_trace(provider, run):
    tracer = provider.get_tracer("obtrace.clients.python", "1.0")
    with tracer.start_as_current_span("earlier", attributes={"client.run": run}) as earlier:
        link = Link(earlier.get_span_context(), {"why": "caused by"})
    attributes = {"client.run": run, "text": "grüße ☕", "whole": 9007199254740993, "real": 0.1, "yes": True, "list": ["a", "b"]}
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER, attributes=attributes, links=[link]) as root:
        root.add_event("cache.miss", {"key": "k1"})
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, attributes={"client.run": run}) as child:
            try:
                raise ValueError("planted")
            except ValueError as error:
                child.record_exception(error)
                child.set_status(Status(StatusCode.ERROR, "planted"))
        return trace.set_span_in_context(root)


def send_logs(provider, run, context):
    logger = provider.get_logger("obtrace.clients.python")
    sent = []
    for number, text in ((SeverityNumber.INFO, "INFO"), (SeverityNumber.WARN, "WARN"), (SeverityNumber.ERROR, "ERROR")):
        body = f"{text.lower()} of {run}"
        logger.emit(
            timestamp=time.time_ns(), context=context, severity_number=number, severity_text=text, body=body,
            attributes={"client.run": run, "whole": 7},
        )
        sent.append({"body": body, "severity_number": number.value, "severity_text": text})
    return sent


def send_metrics(provider, run):
    """Counter, up-down counter, gauge, observable gauge, histogram, exponential histogram. The SDK knows no summary."""
    meter = provider.get_meter("obtrace.clients.python")
    mark = {"client.run": run}
    meter.create_counter("client.counter", unit="1").add(5, mark)
    meter.create_up_down_counter("client.updown").add(-3, mark)
    meter.create_gauge("client.gauge", unit="Cel").set(21.5, mark)
    meter.create_observable_gauge("client.observed", [lambda _: [Observation(4, mark)]])
    for name in ("client.histogram", "client.exponential"):
        histogram = meter.create_histogram(name, unit="s")
        for value in (0.01, 0.2, 3.0, 3.0):
            histogram.record(value, mark)
    kinds = {
        "client.counter": ("sum", 5), "client.updown": ("sum", -3), "client.gauge": ("gauge", 21.5),
        "client.observed": ("gauge", 4), "client.histogram": ("histogram", 4),
        "client.exponential": ("exponential_histogram", 4),
    }
    return [{"name": name, "type": kind, "value": value} for name, (kind, value) in kinds.items()]


def main():
    args = arguments()
    resource = Resource.create({"service.name": f"client-{args.run_id}", "deployment.environment.name": "test"})
    span_exporter, log_exporter, metric_exporter = exporters(args)
    recorder = Recorder()
    tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    tracers.add_span_processor(SimpleSpanProcessor(span_exporter))
    tracers.add_span_processor(SimpleSpanProcessor(recorder))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    view = View(instrument_type=Histogram, instrument_name="client.exponential", aggregation=ExponentialBucketHistogramAggregation())
    # Without an interval only the flush below exports, once: a second export would make a second point of every series.
    reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=float("inf"))
    meters = MeterProvider(resource=resource, metric_readers=[reader], views=[view])

    context = send_trace(tracers, args.run_id)
    logs = send_logs(loggers, args.run_id, context)
    metrics = send_metrics(meters, args.run_id)
    if not meters.force_flush():
        raise SystemExit("the metrics were not taken")
    for provider in (tracers, loggers, meters):
        provider.shutdown()
    print(json.dumps({"service": f"client-{args.run_id}", "spans": recorder.spans, "logs": logs, "metrics": metrics}))


if __name__ == "__main__":
    main()
