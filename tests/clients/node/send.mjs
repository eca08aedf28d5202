// Sends one trace, logs and metrics over OTLP with the official SDK; prints what was sent as JSON.
// Usage: node send.mjs [--protocol grpc|http|http-json] [--compression none|gzip] [--endpoint URL] [--run-id ID] [--api-key KEY]
import { parseArgs } from 'node:util';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { values: args } = parseArgs({
  options: {
    endpoint: { type: 'string' },
    protocol: { type: 'string', default: 'grpc' },
    compression: { type: 'string', default: 'none' },
    'run-id': { type: 'string', default: 'node' },
    'api-key': { type: 'string' },
  },
});

// The packages live outside of the clone; NODE_CLIENT_MODULES names the folder that setup.sh made.
const require = createRequire(process.env.NODE_CLIENT_MODULES ? `${process.env.NODE_CLIENT_MODULES}/x.js` : import.meta.url);
const load = async (name) => import(pathToFileURL(require.resolve(name)));

const { SpanKind, SpanStatusCode, trace, ROOT_CONTEXT } = await load('@opentelemetry/api');
const { SeverityNumber } = await load('@opentelemetry/api-logs');
const { resourceFromAttributes } = await load('@opentelemetry/resources');
const { BasicTracerProvider, SimpleSpanProcessor } = await load('@opentelemetry/sdk-trace-base');
const { LoggerProvider, SimpleLogRecordProcessor } = await load('@opentelemetry/sdk-logs');
const { MeterProvider, PeriodicExportingMetricReader, AggregationType } = await load('@opentelemetry/sdk-metrics');

const flavour = { grpc: 'grpc', http: 'proto', 'http-json': 'http' }[args.protocol];
if (!flavour) throw new Error(`--protocol ${args.protocol}: use grpc, http or http-json`);
const { OTLPTraceExporter } = await load(`@opentelemetry/exporter-trace-otlp-${flavour}`);
const { OTLPLogExporter } = await load(`@opentelemetry/exporter-logs-otlp-${flavour}`);
const { OTLPMetricExporter } = await load(`@opentelemetry/exporter-metrics-otlp-${flavour}`);

async function settings(signal) {
  const base = args.endpoint ?? (flavour === 'grpc' ? 'http://127.0.0.1:4317' : 'http://127.0.0.1:4318');
  const common = { compression: args.compression, timeoutMillis: 10_000 };
  const key = args['api-key'];
  if (flavour !== 'grpc') {
    return { ...common, url: `${base}/v1/${signal}`, headers: key ? { authorization: `Bearer ${key}` } : {} };
  }
  if (!key) return { ...common, url: base };
  const { Metadata } = await load('@grpc/grpc-js');
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${key}`);
  return { ...common, url: base, metadata };
}

// An export that fails must fail the script: the SDK itself only reports it to its diagnostics.
const failures = [];
function strict(exporter) {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      if (result.code !== 0) failures.push(String(result.error));
      done(result);
    });
  return exporter;
}

const run = args['run-id'];
const service = `client-${run}`;
const resource = resourceFromAttributes({ 'service.name': service, 'deployment.environment.name': 'test' });
const nanos = ([seconds, rest]) => String(BigInt(seconds) * 1_000_000_000n + BigInt(rest));

const spans = [];
const recorder = {
  onStart() {},
  onEnd(span) {
    const { traceId, spanId } = span.spanContext();
    spans.push({
      name: span.name,
      trace_id: traceId,
      span_id: spanId,
      parent_span_id: span.parentSpanContext?.spanId ?? null,
      kind: SpanKind[span.kind].toLowerCase(),
      status: SpanStatusCode[span.status.code].toLowerCase(),
      start_unix_nano: nanos(span.startTime),
      end_unix_nano: nanos(span.endTime),
      attributes: span.attributes,
      events: span.events.map((event) => event.name),
      links: span.links.map((link) => link.context.spanId),
    });
  },
  forceFlush: async () => {},
  shutdown: async () => {},
};

const spanExporter = strict(new OTLPTraceExporter(await settings('traces')));
const tracers = new BasicTracerProvider({ resource, spanProcessors: [new SimpleSpanProcessor(spanExporter), recorder] });
const logExporter = strict(new OTLPLogExporter(await settings('logs')));
const loggers = new LoggerProvider({ resource, processors: [new SimpleLogRecordProcessor({ exporter: logExporter })] });
const metricExporter = strict(new OTLPMetricExporter(await settings('metrics')));
const reader = new PeriodicExportingMetricReader({ exporter: metricExporter, exportIntervalMillis: 3_600_000 });
const exponential = { instrumentName: 'client.exponential', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } };
const meters = new MeterProvider({ resource, readers: [reader], views: [exponential] });

// A trace with an event, an exception and a link.
const tracer = tracers.getTracer('obtrace.clients.node', '1.0');
const earlier = tracer.startSpan('earlier', { attributes: { 'client.run': run } }, ROOT_CONTEXT);
earlier.end();
const attributes = { 'client.run': run, text: 'grüße ☕', whole: 42, real: 0.1, yes: true, list: ['a', 'b'] };
const links = [{ context: earlier.spanContext(), attributes: { why: 'caused by' } }];
const root = tracer.startSpan('root', { kind: SpanKind.SERVER, attributes, links }, ROOT_CONTEXT);
root.addEvent('cache.miss', { key: 'k1' });
const inRoot = trace.setSpan(ROOT_CONTEXT, root);
const child = tracer.startSpan('child', { kind: SpanKind.CLIENT, attributes: { 'client.run': run } }, inRoot);
child.recordException(new Error('planted'));
child.setStatus({ code: SpanStatusCode.ERROR, message: 'planted' });
child.end();
root.end();

// Logs within the trace.
const logger = loggers.getLogger('obtrace.clients.node');
const logs = ['INFO', 'WARN', 'ERROR'].map((severityText) => {
  const record = { severityNumber: SeverityNumber[severityText], severityText, body: `${severityText.toLowerCase()} of ${run}` };
  logger.emit({ ...record, context: inRoot, attributes: { 'client.run': run, whole: 7 } });
  return { body: record.body, severity_number: record.severityNumber, severity_text: severityText };
});

// Every kind of metric the SDK knows; it has no summary.
const meter = meters.getMeter('obtrace.clients.node');
const mark = { 'client.run': run };
meter.createCounter('client.counter', { unit: '1' }).add(5, mark);
meter.createUpDownCounter('client.updown').add(-3, mark);
meter.createGauge('client.gauge', { unit: 'Cel' }).record(21.5, mark);
meter.createObservableGauge('client.observed').addCallback((result) => result.observe(4, mark));
for (const name of ['client.histogram', 'client.exponential']) {
  const histogram = meter.createHistogram(name, { unit: 's' });
  for (const value of [0.01, 0.2, 3.0, 3.0]) histogram.record(value, mark);
}
const metrics = [
  { name: 'client.counter', type: 'sum', value: 5 },
  { name: 'client.updown', type: 'sum', value: -3 },
  { name: 'client.gauge', type: 'gauge', value: 21.5 },
  { name: 'client.observed', type: 'gauge', value: 4 },
  { name: 'client.histogram', type: 'histogram', value: 4 },
  { name: 'client.exponential', type: 'exponential_histogram', value: 4 },
];

for (const provider of [tracers, loggers, meters]) await provider.shutdown();
if (failures.length > 0) {
  console.error(failures.join('\n'));
  process.exit(1);
}
console.log(JSON.stringify({ service, spans, logs, metrics }));
