"""Queries over HTTP on stores filled with the same spans: Obtrace and Jaeger asked the same questions, one after the other.

The same run id gives every store the same trace ids, so that each question goes to all of them in turn. A question is
timed from the request to the last byte of the answer, over a connection that stays open; every answer must hold what was
asked for, or the run fails.
"""

import http.client
import json
import time
import urllib.parse

from candidates import Jaeger, Obtrace
from load import percentile
from processes import Failed, log
from store import fill

RUN = "bench-queries"
BATCH = 512
# One question to one candidate is asked at most this long, however often it was to be asked.
PATIENCE = 20


class Asker:
    """One kept connection to a candidate's API."""

    def __init__(self, server):
        self.server = server
        self.connection = http.client.HTTPConnection(server.api, timeout=60)

    def ask(self, path, **query):
        """Milliseconds it took, and the answer."""
        target = path + ("?" + urllib.parse.urlencode(query) if query else "")
        begun = time.perf_counter()
        try:
            self.connection.request("GET", target)
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.server.process.name} does not answer {target}: {error}") from error
        took = (time.perf_counter() - begun) * 1000
        if answer.status != 200:
            raise Failed(f"{self.server.process.name} answers {target} with {answer.status}: {body[:200]!r}")
        return took, json.loads(body)


class AskObtrace(Asker):
    def trace(self, id):
        took, answer = self.ask(f"/api/v1/traces/{id}")
        return took, len(answer["spans"])

    def service(self, name):
        took, answer = self.ask("/api/v1/spans", service=name, limit=100)
        return took, len(answer["items"])

    def service_traces(self, name):
        took, answer = self.ask("/api/v1/traces", service=name, limit=20)
        return took, len(answer["items"])

    def attribute(self, name, batch):
        took, answer = self.ask("/api/v1/spans", limit=100, **{"attr.obtrace.load.batch": batch})
        return took, len(answer["items"])


class AskJaeger(Asker):
    def trace(self, id):
        took, answer = self.ask(f"/api/traces/{id}")
        return took, sum(len(trace["spans"]) for trace in answer["data"])

    def service(self, name):
        """It knows no list of spans: 20 whole traces of 8 spans are the nearest to 100 spans."""
        return self.service_traces(name)

    def service_traces(self, name):
        took, answer = self.ask("/api/traces", service=name, limit=20, **self.window())
        return took, len(answer["data"])

    def attribute(self, name, batch):
        """It needs the service as well."""
        tags = json.dumps({"obtrace.load.batch": str(batch)})
        took, answer = self.ask("/api/traces", service=name, limit=20, tags=tags, **self.window())
        return took, len(answer["data"])

    def window(self):
        now = int(time.time() * 1e6)
        return {"start": now - 3_600_000_000, "end": now + 60_000_000}


def samples(obtrace, batches):
    """(service, batch, trace ids) of batches spread over the run, as the store has them."""
    found = []
    for batch in batches:
        items = obtrace.get("/spans", limit=40, **{"attr.obtrace.load.run": RUN, "attr.obtrace.load.batch": batch})["items"]
        if not items:
            raise Failed(f"batch {batch} of the run is not in the store")
        found.append((items[0]["service"], batch, sorted({item["trace_id"] for item in items})))
    return found


def questions(found):
    """Question → how the n-th one is asked, and the least that a right answer holds."""
    one = lambda n: found[n % len(found)]
    return {
        "trace by id": (lambda to, n: to.trace(one(n)[2][n // len(found) % len(one(n)[2])]), 8),
        "newest 100 spans of a service": (lambda to, n: to.service(one(n)[0]), 20),
        "newest 20 traces of a service": (lambda to, n: to.service_traces(one(n)[0]), 20),
        "rare attribute value": (lambda to, n: to.attribute(one(n)[0], one(n)[1]), 20),
    }


def ask_all(askers, found, times):
    results = {}
    for question, (ask, least) in questions(found).items():
        took, until = {name: [] for name in askers}, dict.fromkeys(askers)
        for n in range(-1, times):
            for name, asker in askers.items():
                if until[name] and time.monotonic() > until[name]:
                    continue
                ms, holds = ask(asker, max(n, 0))
                if holds < least:
                    raise Failed(f"{name} answers {question!r} with {holds} items, at least {least} are stored")
                if n < 0:  # the first one warms up
                    until[name] = time.monotonic() + PATIENCE * len(askers)
                else:
                    took[name].append(ms)
        for name, values in took.items():
            if not values:
                raise Failed(f"{name} did not answer {question!r} a second time within {PATIENCE} s")
            results.setdefault(question, {})[name] = {
                "p50_ms": percentile(values, 0.5), "p95_ms": percentile(values, 0.95), "asked": len(values)}
            log(f"queries: {question}: {name}: p50 {percentile(values, 0.5):.1f} ms, p95 {percentile(values, 0.95):.1f} ms")
    return results


def filled(name, start, count, servers, stored):
    """Starts and fills one store; it stays up for the questions."""
    servers[name] = server = start()
    stored[name] = fill(server, count, RUN)["stored"]
    log(f"queries: {name} holds {stored[name]} spans")


def measure(here, plan):
    spans, few = plan["spans"], plan["badger_spans"]
    servers, stored, notes = {}, {}, []
    try:
        filled("obtrace", lambda: Obtrace("json"), spans, servers, stored)
        for store, count in (("memory", spans), ("badger", few)) if here.path("jaeger") else ():
            try:
                filled(f"jaeger {store}", lambda: Jaeger(here.path("jaeger"), store, count), count, servers, stored)
            except Failed as why:
                notes.append(f"jaeger {store} is left out: {why}")
                log(notes[-1])
                if f"jaeger {store}" in servers:
                    servers.pop(f"jaeger {store}").stop()
        time.sleep(plan["settle_seconds"])
        # Badger has only the first batches, so the questions are about those: the same in every store.
        batches = min(stored[name] for name in servers) // BATCH
        found = samples(servers["obtrace"], [n * batches // 16 for n in range(16)])
        askers = {name: AskObtrace(s) if isinstance(s, Obtrace) else AskJaeger(s) for name, s in servers.items()}
        summary = ask_all(askers, found, plan["times"])
        return {"stored": stored, "summary": summary, "notes": notes}
    finally:
        for server in servers.values():
            server.stop()
