"""Clients of the planet: threads that live in a host's namespace and count what they get."""

import http.client
import json
import threading
import time

import wan
from beside import Beside

PATIENCE_S = 5.0
RESERVE = "/apps/demo~2fecho/session"


def asked(url):
    """Splits http://host:port into what a connection needs."""
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port or 80)


def get(url, path, method="GET", body=None, patience=PATIENCE_S):
    """One exchange on a connection of its own, from this thread's namespace."""
    connection = http.client.HTTPConnection(*asked(url), timeout=patience)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class At:
    """Runs a function in a host's namespace and returns what it returns."""

    def __init__(self, host):
        self.host = host

    def __call__(self, what, *args, **kwargs):
        outcome = {}

        def run():
            wan.enter(self.host.namespace)
            try:
                outcome["is"] = what(*args, **kwargs)
            except BaseException as error:  # handed on to whoever waits
                outcome["error"] = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["is"]


class Caller(Beside):
    """Calls an app again and again; when an entry fails, the next one of its list is used, as
    an SDK that walks its list does. What failed everywhere is an error of the client."""

    def __init__(self, host, entries, path, every_s=0.02):
        super().__init__()
        self.host, self.entries, self.path, self.every_s = host, entries, path, every_s
        self.served, self.errors, self.moves, self.slowest = 0, [], 0, 0.0

    def run(self):
        wan.enter(self.host.namespace)
        kept, at = None, 0
        while not self.over.wait(self.every_s):
            begun, said = time.monotonic(), None
            for _ in range(2 * len(self.entries)):
                try:
                    if kept is None:
                        url = self.entries[at % len(self.entries)]
                        kept = http.client.HTTPConnection(*asked(url), timeout=PATIENCE_S)
                    kept.request("POST", self.path, b"hello", {"idempotency-key": "1"})
                    answer = kept.getresponse()
                    body = answer.read()
                    if answer.status == 200 and body == b"hello":
                        self.served += 1
                        said = None
                        if answer.getheader("connection") == "close":
                            kept = self.leave(kept)
                        break
                    said = f"{answer.status} {body[:200]}"
                except (OSError, http.client.HTTPException) as error:
                    said = repr(error)
                kept = self.leave(kept)
                at += 1
                self.moves += 1
            if said:
                self.errors.append(said)
            self.slowest = max(self.slowest, time.monotonic() - begun)

    @staticmethod
    def leave(kept):
        if kept is not None:
            kept.close()

    def told(self):
        return (f"{self.served} served, {len(self.errors)} errors, {self.moves} moves, "
                f"{self.slowest * 1000:.0f} ms at most")


class Stream(Beside):
    """A session's server-sent events, `n` of them, one each `every_s`; read to the end by a
    thread of the host's namespace."""

    def __init__(self, host, url, n, every_s=0.1):
        super().__init__()
        self.host, self.url, self.n, self.every_s = host, url, n, every_s
        self.seen, self.error, self.gap = 0, None, 0.0
        self.begun, self.patience = threading.Event(), n * every_s + 10

    def __enter__(self):
        super().__enter__()
        assert self.begun.wait(PATIENCE_S) and not self.error, self.error or "no event came"
        return self

    def run(self):
        wan.enter(self.host.namespace)
        try:
            _, said = get(self.url, RESERVE, "POST", b"{}")
            app = json.loads(said)["app_url"]
            path = "/" + app.removeprefix("http://").partition("/")[2]
            connection = http.client.HTTPConnection(*asked(self.url), timeout=PATIENCE_S)
            connection.request("GET", f"{path}/events?n={self.n}&every_ms={self.every_s * 1000:.0f}")
            answer, last = connection.getresponse(), None
            while line := answer.readline():
                if not line.startswith(b"data:"):
                    continue
                now = time.monotonic()
                self.gap = max(self.gap, now - (last or now))
                self.seen, last = self.seen + 1, now
                self.begun.set()
            connection.close()
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            self.error = repr(error)
        self.begun.set()

    def problem(self):
        if self.error or self.seen != self.n:
            return f"{self.host.name}: {self.seen} of {self.n} events: {self.error or 'cut'}"
        return None


def admin(node, path, method="GET"):
    """Asks a node's admin door, which only its own host reaches."""
    status, body = At(node.host)(get, "http://127.0.0.1:7936", path, method)
    return status, json.loads(body or b"null")
