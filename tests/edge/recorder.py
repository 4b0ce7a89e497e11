"""A backend that writes down every request it gets, byte for byte, and answers all of them.

It reads no more generously than it must: what is not a request in the plainest form is noted
as noise, so that bytes a proxy before it took for part of something else are seen.
"""

import json
import re
import socketserver
import sys
import threading

from nodes import APP

HEAD_MAX = 256 * 1024


class Seen:
    """One request as it arrived; text stands for bytes, one character each."""

    def __init__(self, method, target, fields, body, whole=True):
        self.method, self.target, self.fields = method, target, fields
        self.body, self.whole = body, whole

    def values(self, name):
        return [value for it, value in self.fields if it == name]

    def __repr__(self):
        state = "" if self.whole else " (broken off)"
        return f"{self.method} {self.target}{state} {self.fields} {self.body[:80]!r}"


class Record:
    """What one backend saw, but for the checks of the node."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = []

    def note(self, seen):
        with self.lock:
            self.seen.append(seen)

    def take(self):
        with self.lock:
            taken, self.seen = self.seen, []
            return taken

    def whole(self):
        with self.lock:
            return sum(it.whole for it in self.seen)


def discovery(origin):
    """The list of an orchestrator at the URL `origin`: a single-shot runner and a session's."""
    places = {"capacity": 200, "capacity_used": 0, "capacity_available": 200, "version": "1"}
    once = {"url": f"{origin}/once/app", "app": APP, "mode": "single-shot", **places}
    long = {"url": f"{origin}/long/session", "app": "edge/long", "mode": "persistent", **places}
    return json.dumps([{"address": origin, "runners": [once, long]}]).encode()


def reservation(origin):
    """The answer to whoever reserves a session."""
    control = f"{origin}/long/session/s1"
    told = {"session_id": "s1", "app_url": f"{control}/app", "control_url": control}
    return json.dumps(told).encode()


def is_check(method, target):
    return method == "GET" and target == "/discovery"


class Noise(Exception):
    """Bytes that are no request."""


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while self.one():
                pass
        except Noise as noise:
            self.server.record.note(Seen("NOISE", str(noise), [], ""))
        except OSError:
            pass

    def line(self):
        line = self.rfile.readline(HEAD_MAX)
        if not line.endswith(b"\r\n"):
            raise Noise(line[:200]) if line else EOFError
        return line[:-2].decode("latin-1")

    def one(self):
        try:
            head = re.fullmatch(r"(\S+) (\S+) HTTP/1\.[01]", first := self.line())
            if not head:
                raise Noise(first)
            fields = []
            while text := self.line():
                name, colon, value = text.partition(":")
                if not colon or name != name.strip():
                    raise Noise(text)
                fields.append((name.lower(), value.strip(" \t")))
        except EOFError:
            return False
        seen = Seen(head[1], head[2], fields, "", whole=False)
        try:
            self.body(seen)
        except EOFError:
            pass
        if not is_check(seen.method, seen.target):
            self.server.record.note(seen)
        if seen.whole:
            self.answer(seen)
        return seen.whole and "close" not in seen.values("connection")

    def body(self, seen):
        """Reads the body, as much as there is of it."""
        lengths, codings = seen.values("content-length"), seen.values("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Noise(f"framed twice: {seen.fields}")
        if codings:
            if codings != ["chunked"]:
                raise Noise(f"coded oddly: {codings}")
            while size := int(self.line(), 16):
                self.take(seen, size)
                if self.line():
                    raise Noise("data after a chunk")
            while trailer := self.line():
                seen.fields.append(("(trailer) " + trailer, ""))
        elif lengths:
            self.take(seen, int(lengths[0]))
        seen.whole = True

    def take(self, seen, size):
        data = self.rfile.read(size)
        seen.body += data.decode("latin-1")
        if len(data) < size:
            raise EOFError

    def answer(self, seen):
        body = self.server.answer_to(seen)
        # Of a HEAD request the length alone is told.
        sent = b"" if seen.method == "HEAD" else body
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), sent))


class Recorder(socketserver.ThreadingTCPServer):
    """Listens on loopback; `origin` is the URL under which a node knows it."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port, origin, handler=Handler):
        super().__init__(("127.0.0.1", port), handler)
        self.record, self.list, self.session = Record(), discovery(origin), reservation(origin)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer_to(self, seen):
        if is_check(seen.method, seen.target):
            return self.list
        return self.session if seen.target == "/long/session" else b"served"

    def handle_error(self, request, client_address):
        """A connection that breaks off is no matter; anything else is a fault of the suite."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
