# A trace, a log record and a metric to http://127.0.0.1:4317; OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME change that.
import logging, opentelemetry.metrics as metrics, opentelemetry.trace as trace
from opentelemetry.sdk._configuration import _OTelSDKConfigurator as Sdk
Sdk().configure(trace_exporter_names=["otlp_proto_grpc"], metric_exporter_names=["otlp_proto_grpc"], log_exporter_names=["otlp_proto_grpc"], setup_logging_handler=True)
with trace.get_tracer("quickstart").start_as_current_span("hello"):
    logging.warning("hello log"), metrics.get_meter("quickstart").create_counter("hello").add(1)
