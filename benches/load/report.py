"""Figures in, a Markdown table out that can stand in README as it is, with what limits it said below."""

import os

from processes import HERE, log

README = os.path.join(HERE, "..", "..", "README.md")
BEGIN, END = "<!-- figures: written by benches/load/run.sh readme -->", "<!-- figures end -->"
NAMES = {
    "rotel": "rotel → blackhole",
    "collector nop": "Collector → nop",
    "collector checked": "Collector, token + redaction + attribute → nop",
    "jaeger memory": "Jaeger, memory",
    "jaeger badger": "Jaeger, badger",
}


def thousands(value):
    return f"{value / 1000:.0f}k" if value < 1e6 else f"{value / 1e6:.2f}M"


def ranged(spread, form):
    """A median, with its range where there was more than one run."""
    if spread["runs"] == 1:
        return form(spread["median"])
    return f"{form(spread['median'])} ({form(spread['min'])}–{form(spread['max'])})"


def both(values, form="{:.0f}"):
    """Main and engine, or one process alone."""
    return " + ".join(form.format(value) for value in values)


def medians(spreads):
    return [spread["median"] for spread in spreads]


def peers_of(summary):
    return [name for name in summary if not name.startswith("obtrace")]


def listed(parts):
    return "; ".join(parts)


def idle_rows(section):
    figures = section["summary"]
    ours = figures["obtrace"]
    memory = listed(f"{NAMES[p]} {both(figures[p]['rss_mib'])} MiB" for p in peers_of(figures))
    share = listed(f"{NAMES[p]} {both([100 * s for s in figures[p]['cpu_share']], '{:.1f}')} %" for p in peers_of(figures))
    yield "idle memory, main + engine", f"{both(ours['rss_mib'])} MiB", memory, "60 + 240 MB"
    yield "idle CPU, main + engine", f"{both([100 * s for s in ours['cpu_share']], '{:.1f}')} % of a core", share, ""


def edge_rows(section):
    summary, ratios = section["summary"], section["ratios"]
    for log_name, what in (("counting", "edge into a counting log"), ("durable", "edge into the durable log, synced")):
        for wire, form in (("json", "JSON"), ("otlp", "OTLP bytes")):
            ours = f"obtrace {wire}, {log_name}"
            if ours not in summary:
                continue
            value = f"{ranged(summary[ours]['spans_per_cpu_second'], thousands)} spans per CPU-second"
            beside = listed(
                f"{NAMES[p]} {ranged(summary[p]['spans_per_cpu_second'], thousands)}, "
                f"ratio {ranged(ratios[f'{ours} / {p}'], '{:.2f}'.format)}" for p in peers_of(summary))
            yield f"{what}, {form}", value, beside, ""
    peak = lambda name: f"{summary[name]['peak_rss_mib']['median']:.0f}"
    ours = " and ".join(f"{peak(n)} MiB ({n.removeprefix('obtrace ')})" for n in summary if n.startswith("obtrace"))
    yield ("peak memory of the edge under that load", ours,
           listed(f"{NAMES[p]} {peak(p)} MiB" for p in peers_of(summary)), "")


def ack_rows(section):
    summary = section["summary"]
    for rate, words in (("1000/s", "1k spans/s"), ("10000/s", "10k spans/s")):
        pair = lambda name: f"{summary[name][rate]['p50']['median']:.1f} / {summary[name][rate]['p99']['median']:.1f} ms"
        beside = listed(f"{NAMES[p]} {pair(p)}" for p in peers_of(summary))
        yield f"acknowledgement at {words}, p50 / p99", pair("obtrace"), beside, ""


def store_rows(section):
    summary, ratios = section["summary"], section["ratios"]
    peers = peers_of(summary)
    ours = [("obtrace json", "JSON"), ("obtrace otlp", "OTLP bytes")]
    for name, form in ours:
        yield (f"end to end, stored, generator on the same cores, {form}",
               f"{ranged(summary[name]['stored_per_second'], thousands)} spans/s",
               listed(f"{NAMES[p]} {ranged(summary[p]['stored_per_second'], thousands)}" for p in peers), "60k")
    for name, form in ours:
        beside = listed(
            f"{NAMES[p]} {both(medians(summary[p]['cpu_seconds_per_million']), '{:.1f}')}, "
            f"ours does {ranged(ratios[f'{name} / {p}'], '{:.2f}'.format)} times its spans per CPU-second" for p in peers)
        yield (f"CPU-seconds for a million spans, {form}, main + engine",
               both(medians(summary[name]["cpu_seconds_per_million"]), "{:.1f}"), beside, "")
    loaded = lambda name: (f"{both(medians(summary[name]['rss_mib']))} MiB, "
                           f"peak {both(medians(summary[name]['peak_rss_mib']))}")
    for name, form in ours:
        yield (f"loaded memory, {form}, main + engine", loaded(name),
               listed(f"{NAMES[p]} {loaded(p)}" for p in peers), "")
    count = lambda name: f"{summary[name]['stored']:,} of {summary[name]['acknowledged']:,}"
    asked = sum(summary[name]["verified"] for name, _ in ours)
    yield ("stored of acknowledged", f"{listed(count(name) for name, _ in ours)}; {asked:,} asked back one by one",
           listed(f"{NAMES[p]} {count(p)}" for p in peers), "all, once")


GOALS = {"trace by id": "50 ms", "newest 100 spans of a service": "30 ms", "rare attribute value": "40 ms"}


def query_rows(section):
    for question, figures in section["summary"].items():
        pair = lambda name: f"{figures[name]['p50_ms']:.1f} / {figures[name]['p95_ms']:.1f} ms"
        yield (f"{question} over HTTP, p50 / p95", pair("obtrace"),
               listed(f"{NAMES[p]} {pair(p)}" for p in peers_of(figures)), GOALS.get(question, ""))


def worker_rows(section):
    summary, ratios = section["summary"], section["ratios"]
    for wire, form in (("json", "JSON"), ("avro", "Avro"), ("otlp", "OTLP bytes")):
        if f"obtrace {wire}" not in summary:
            continue
        beside = []
        for theirs in ("json", "otlp"):
            if f"{wire} / {theirs}" in ratios:
                rate = ranged(summary[f"collector {theirs}"]["spans_per_cpu_second"], thousands)
                ratio = ranged(ratios[f"{wire} / {theirs}"], "{:.2f}".format)
                what = "OTLP/JSON" if theirs == "json" else "OTLP bytes"
                beside.append(f"Collector, {what} {rate}, ratio {ratio}")
        value = f"{ranged(summary[f'obtrace {wire}']['spans_per_cpu_second'], thousands)} spans per CPU-second"
        yield f"worker, Kafka → engine, {form}", value, listed(beside), "3.5 times, aim 5 times"
    rate = lambda name: ranged(summary[name]["engine_spans_per_cpu_second"], thousands)
    ours = listed(f"{rate(name)} ({name.removeprefix('obtrace ')})" for name in summary if name.startswith("obtrace"))
    theirs = listed(f"Collector's table {rate(name)} ({name.removeprefix('collector ')})" for name in peers_of(summary))
    yield "the engine meanwhile, spans per its own CPU-second", ours, theirs, ""
    peak = lambda name: f"{summary[name]['peak_rss_mib']['median']:.0f} MiB ({name.split(' ')[1]})"
    yield ("peak memory of the worker", listed(peak(n) for n in summary if n.startswith("obtrace")),
           listed(f"Collector {peak(n)}" for n in peers_of(summary)), "")
    formats = section["formats"]
    yield ("rows inserted per CPU-second of the engine, ArrowStream", ranged(formats["ArrowStream"], thousands),
           f"JSONEachRow {ranged(formats['JSONEachRow'], thousands)}; "
           f"CPU a row {ranged(formats['ratio'], '{:.2f}'.format)} of it", "0.35 or less")


ROWS = {"idle": idle_rows, "edge": edge_rows, "ack": ack_rows, "store": store_rows, "queries": query_rows, "worker": worker_rows}


def notes(figures):
    """What one has to know to read the table."""
    taken = {name: section for name, section in figures.items() if name in ROWS}
    about = [section["about"] for section in taken.values()]
    if not about:
        return
    runs = {}
    for name, section in taken.items():
        a = section["about"]
        runs.setdefault((a["when"][:10], a["commit"], a["quick"]), []).append((name, a["load_before"] / a["cores"]))
    for (day, commit, quick), sections in runs.items():
        short = ", short runs (`--quick`: they show that it works, not how fast)" if quick else ""
        yield (f"{', '.join(name for name, _ in sections)}: taken {day} at commit {commit} on {about[0]['cores']} cores "
               f"({about[0]['cpu']}){short}; load before a section at most {max(load for _, load in sections):.1f} a core.")
    if max(a["load_before"] / a["cores"] for a in about) > 0.3:
        yield ("Where the load was above 0.3 a core the machine was busy with other work: wall-clock rates and latencies are "
               "worth little then, ratios something.")
    yield ("Rounds go A B C, A B C: medians, ranges in brackets, ratios round by round (above 1: Obtrace does more). "
           "CPU is the servers' own. A difference under 15 % means nothing.")
    edge = taken.get("edge", {})
    if "summary" in edge:
        yield ("At the edge Obtrace checks an API key, decodes, looks at every record, hashes the request and encodes an "
               "envelope; the counting log keeps nothing (no compression, no dedup, no disk). rotel and Collector → nop "
               "decode and drop; the other Collector checks a token, looks for card numbers in every value and stamps an "
               f"attribute. rotel ran on {edge['rotel_allocator']}." if edge.get("rotel_allocator") else
               "At the edge Obtrace checks an API key, decodes, looks at every record, hashes and encodes an envelope; "
               "the counting log keeps nothing.")
    if "summary" in taken.get("ack", {}):
        yield ("Obtrace acknowledges what is synced to disk. The peers acknowledge before anything is on a disk "
               "(batches of 50 at 1k spans/s, of 512 at 10k spans/s).")
    store = taken.get("store", {}).get("summary", {})
    if "jaeger badger" in store:
        yield (f"Stored: {store['obtrace json']['spans']:,} spans a round, {store['jaeger badger']['spans']:,} for badger, "
               "which is that much slower. Jaeger's memory store keeps nothing on disk; badger does not sync. The counter that is read for Obtrace includes the few spans it tells of itself.")
    stored = taken.get("queries", {}).get("stored")
    if stored:
        yield ("Queries on " + ", ".join(f"{count:,} spans ({NAMES.get(name, 'Obtrace')})" for name, count in stored.items())
               + "; for 100 spans of a service, and for the attribute, Jaeger is asked for its 20 newest traces of 8 spans, "
               "which is the nearest it knows, and its attribute search names the service as well.")
    worker = taken.get("worker", {})
    if worker.get("summary"):
        spans = next(iter(worker["runs"].values()))[0]["stored"]
        yield (f"Worker: about {spans:,} spans of {worker['about']['plan']['worker_rounds']} topics each, on one broker, read from the beginning into an empty "
               "engine in blocks of 50,000; the worker's CPU until the last span is stored, less what a start costs. "
               "Obtrace claims, deduplicates, commits an intent and an end for each block; the Collector (kafkareceiver "
               "0.155, clickhouseexporter 0.161, no compression, no async insert) commits when it has read. The Collector "
               "writes its own table, which is narrower.")
    for name, section in taken.items():
        if "failed" in section:
            yield f"Not measured: {name}, because {section['failed']}."
        yield from section.get("notes", [])
    yield from sorted({reason for section in taken.values() for reason in section["peers_missing"]})
    missing = [name for name in ROWS if name not in figures and name != "worker"]
    if missing:
        yield f"Not taken yet: {', '.join(missing)}."


def table(figures):
    lines = ["| what | Obtrace | beside it, same run | goal |", "|---|---|---|---|"]
    for name, rows in ROWS.items():
        section = figures.get(name)
        if section and "summary" in section:
            lines += [f"| {' | '.join(row)} |" for row in rows(section)]
    return "\n".join(lines + [""] + [f"- {note}" for note in notes(figures)])


def into_readme(table):
    """Puts the table between the marks in README.md."""
    with open(README) as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        log(f"README.md must have {BEGIN!r} and {END!r} once each")
        return 1
    head, rest = text.split(BEGIN)
    with open(README, "w") as f:
        f.write(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")
    return 0
