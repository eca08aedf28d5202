"""A worker between Kafka and the engine: spans for each CPU-second of the worker, by the format that lies in the topic,
beside the OpenTelemetry Collector; and what a row costs the engine in the format that the worker inserts.

Each round fills a topic of its own by Obtrace's edge, then lets each worker have it from its beginning, one after the
other, into an engine of its own. A worker's CPU counts from its start until the last span is stored; what it costs to
start is measured on an empty topic and taken off. The engine's CPU is told apart, and that of the broker is not counted.
"""

import time

from candidates import Obtrace
from load import SHAPE, load, spread
from processes import Failed, log, remove
from workers import CollectorWorker, Edge, Engine, Kafka, Worker, knows_avro

# What the Collector calls what lies in the topic; it knows no Avro of OTLP.
ENCODINGS = {"json": "otlp_json", "otlp": "otlp_proto"}
# Rows are copied in blocks such as the worker inserts, with its settings.
BLOCK = 50_000
SETTINGS = {"async_insert": 0, "materialize_skip_indexes_on_insert": 0, "min_insert_block_size_rows": 1_000_000_000,
            "min_insert_block_size_bytes": 4_000_000_000, "max_insert_block_size": 1_000_000_000}
# Arrow as the worker writes it (domain/columns): words as dictionaries, text as text, nothing compressed.
AS_THE_WORKER = {"output_format_arrow_low_cardinality_as_dictionary": 1, "output_format_arrow_use_signed_indexes_for_dictionary": 1,
                 "output_format_arrow_string_as_string": 1, "output_format_arrow_fixed_string_as_fixed_byte_array": 1,
                 "output_format_arrow_compression_method": "none"}


def drain(server, engine, spans, seconds=300):
    """Waits until `spans` are stored; the CPU of worker and engine for it."""
    begun, deadline = time.monotonic(), time.monotonic() + seconds
    engine_before = engine.cpu()[0]
    while True:
        try:
            stored = server.stored(engine)
        except OSError:
            stored = 0  # it does not listen yet
        if stored >= spans:
            break
        if server.process.child.poll() is not None:
            raise Failed(f"{server.process.name} ended: {server.process.last_words()}")
        if time.monotonic() > deadline:
            raise Failed(f"{server.process.name} has stored {stored} of {spans} spans after {seconds} s, "
                         f"see {server.process.said}")
        time.sleep(0.25)
    return {"stored": stored, "seconds": time.monotonic() - begun, "cpu": server.cpu()[0],
            "engine_cpu": engine.cpu()[0] - engine_before, "peak_rss_mib": server.peak_rss()[0]}


def start_up_cost(start, settle):
    """CPU seconds of a worker that has nothing to do, for the same start."""
    with Engine() as engine, start(engine) as server:
        time.sleep(settle)
        if server.process.child.poll() is not None:
            raise Failed(f"{server.process.name} ended: {server.process.last_words()}")
        return server.cpu()[0]


def fill(kafka, wire, prefix, spans):
    with Edge(kafka, wire, prefix) as edge:
        return load(edge, "--saturate", "--records", str(spans), "--run-id", prefix, *SHAPE)["accepted"]


def workers(here, kafka, prefix, wire):
    """Name → how to start it on the topics of `prefix`."""
    starts = {f"obtrace {wire}": lambda engine: Worker(kafka, engine, prefix)}
    binary = here.path("collector-kafka")
    if binary and wire in ENCODINGS:
        starts[f"collector {wire}"] = lambda engine: CollectorWorker(binary, kafka, engine, prefix, ENCODINGS[wire])
    return starts


def once(start, spans, cost, table):
    with Engine() as engine, start(engine) as server:
        figure = drain(server, engine, spans)
        # The counters of a worker are its own word; the store is asked as well.
        found = engine.count(table)
        if not spans <= found <= spans * 1.001:
            raise Failed(f"{server.process.name}: {spans} spans were acknowledged, the store has {found}")
    used = max(figure["cpu"] - cost, 0.01)
    return {**figure, "found": found, "start_cpu": cost, "spans_per_cpu_second": spans / used,
            "engine_spans_per_cpu_second": spans / max(figure["engine_cpu"], 0.01)}


def measure(here, plan):
    runs, notes, costs = {}, [], {}
    wires = ["json", *(["avro"] if knows_avro() else []), "otlp"]
    with Kafka() as kafka:
        for n in range(plan["worker_rounds"]):
            for wire in wires:
                prefix = f"r{n}-{wire}-"
                spans = fill(kafka, wire, prefix, plan["worker_spans"])
                for name, start in workers(here, kafka, prefix, wire).items():
                    kind = name.split(" ")[0]
                    table = "spans" if kind == "obtrace" else "otel_traces"
                    try:
                        if kind not in costs:
                            empty = next(s for k, s in workers(here, kafka, "empty-", "otlp").items() if k.startswith(kind))
                            if kind == "obtrace":
                                fill(kafka, "otlp", "empty-", 1)
                            costs[kind] = start_up_cost(empty, plan["settle_seconds"] + 3)
                        figure = once(start, spans, costs[kind], table)
                    except Failed as why:
                        if kind == "obtrace":
                            raise
                        notes.append(f"{name}, round {n + 1}, is left out: {why}")
                        log(notes[-1])
                        continue
                    runs.setdefault(name, []).append(figure)
                    log(f"worker, round {n + 1}: {name}: {figure['spans_per_cpu_second'] / 1000:.0f}k spans per CPU-second "
                        f"of the worker, {figure['engine_spans_per_cpu_second'] / 1000:.0f}k of the engine")
    formats = insert_formats(plan["format_rows"], plan["format_rounds"])
    keys = ("spans_per_cpu_second", "engine_spans_per_cpu_second", "peak_rss_mib")
    return {"runs": runs, "notes": notes, "formats": formats, "start_cpu": costs,
            "summary": {name: {key: spread([f[key] for f in figures]) for key in keys} for name, figures in runs.items()},
            "ratios": ratios(runs)}


def ratios(runs):
    """Our worker over the Collector, round by round: the same format, and our Avro over its JSON."""
    found = {}
    for ours, theirs in (("json", "json"), ("otlp", "otlp"), ("avro", "json"), ("avro", "otlp")):
        a, b = runs.get(f"obtrace {ours}", []), runs.get(f"collector {theirs}", [])
        pairs = [x["spans_per_cpu_second"] / y["spans_per_cpu_second"] for x, y in zip(a, b)]
        if pairs:
            found[f"{ours} / {theirs}"] = spread(pairs)
    return found


def insert_formats(rows, rounds):
    """CPU seconds of the engine to insert the same rows as ArrowStream and as JSONEachRow, in turns, without merges."""
    stored = store_rows(rows)
    with Engine(stored) as engine:
        used = {"ArrowStream": [], "JSONEachRow": []}
        size = dict.fromkeys(used, 0)
        for n in range(rounds):
            for form, seconds in used.items():
                blocks = [engine.sql(f"select * from obtrace.spans limit {BLOCK} offset {at} format {form}", max_threads=1,
                                     **AS_THE_WORKER)
                          for at in range(0, rows, BLOCK)]
                size[form] = sum(map(len, blocks)) / rows
                seconds.append(insert_all(engine, form, blocks, rows))
                log(f"worker, round {n + 1}: {form}: {rows / seconds[-1] / 1000:.0f}k rows per CPU-second of the engine")
    remove(stored)
    pairs = zip(used["ArrowStream"], used["JSONEachRow"])
    return {"rows": rows, "ratio": spread([a / b for a, b in pairs]), "bytes_per_row": size,
            **{form: spread([rows / s for s in seconds]) for form, seconds in used.items()}}


def store_rows(rows):
    """A folder with at least so many spans in it, as Obtrace stores them."""
    server = Obtrace("otlp")
    report = load(server, "--saturate", "--records", str(rows), "--run-id", "formats", *SHAPE)
    deadline = time.monotonic() + 120
    while server.stored() < report["accepted"]:
        if time.monotonic() > deadline:
            raise Failed(f"{report['accepted']} spans acknowledged, {server.stored()} stored after 120 s")
        time.sleep(0.1)
    server.process.stop()
    return server.folder


def insert_all(engine, form, blocks, rows):
    """Inserts the blocks into a fresh copy of the table; the CPU of the engine for it."""
    engine.sql("drop table if exists obtrace.copy")
    engine.sql("create table obtrace.copy as obtrace.spans")
    # Merges cost the same whatever the rows came in.
    engine.sql("alter table obtrace.copy modify setting max_bytes_to_merge_at_max_space_in_pool = 1")
    time.sleep(2)
    before, begun = engine.cpu()[0], time.monotonic_ns()
    for n, block in enumerate(blocks):
        # By its token, as the worker's blocks: without one the engine hashes every value to know the block again.
        engine.sql(f"insert into obtrace.copy format {form}", block, insert_deduplication_token=f"{form}-{begun}-{n}", **SETTINGS)
    used = engine.cpu()[0] - before
    if (found := engine.count("copy")) != rows:
        raise Failed(f"{rows} rows were inserted as {form}, {found} are there")
    return used
