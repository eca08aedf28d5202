"""A relay before the engine for clients that greet a ClickHouse server. In: HTTP. Out: the same at the engine.

ClickHouse's Go driver asks a server for its revision and reads the answer in a form that newer servers have; the engine
answers in the first form only. So the greeting is answered here, with revision 0, by which the driver keeps to that form.
All else passes as it is. It runs in a process of its own: its CPU counts for nobody.
"""

import http.client
import http.server
import sys

GREETING = b"SELECT displayName(), version(), revision(), timezone()"


def text(value):
    assert len(value) < 128
    return bytes([len(value)]) + value.encode()


def greeting():
    """One block in ClickHouse's Native format as it is since revision 54454: block info, then columns."""
    columns = [("displayName()", "String", text("engine")), ("version()", "String", text("26.7.3.1")),
               ("revision()", "UInt32", (0).to_bytes(4, "little")), ("timezone()", "String", text("UTC"))]
    info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    return info + bytes([len(columns), 1]) + b"".join(text(n) + text(t) + b"\x00" + v for n, t, v in columns)


class Relay(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine = None

    def setup(self):
        super().setup()
        self.upstream = http.client.HTTPConnection(self.engine, timeout=120)

    def finish(self):
        self.upstream.close()
        super().finish()

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def do_POST(self):
        body = self.body()
        if body.startswith(GREETING):
            return self.answer(200, {}, greeting())
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("host", "transfer-encoding", "content-length", "connection")}
        self.upstream.request("POST", self.path, body=body, headers=headers)
        answer = self.upstream.getresponse()
        self.answer(answer.status, dict(answer.getheaders()), answer.read())

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def log_error(self, form, *args):
        print(form % args, file=sys.stderr, flush=True)


def main():
    (host, port), Relay.engine = sys.argv[1].rsplit(":", 1), sys.argv[2]
    http.server.ThreadingHTTPServer((host, int(port)), Relay).serve_forever()


main()
