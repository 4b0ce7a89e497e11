"""Sends every case of tests/data/http1 to nodes before four origins, and compares.

A case says what the origin must have seen of it, request by request, and what the client is
answered; anything more, at either end, is a failure. Fields of a case:
  send      text whose characters are bytes; a list stands for a text repeated
  sees      the requests an origin sees: method, query, body, and fields that it
            has, hasnt, or has just one of
  answers   the statuses answered by whoever answers; 200 for each request seen by default
  refused   the status of a fault that ends the connection, after the answers above
  cut       the fault is within a body, after its head went on: no whole request arrives
  waits     the request never ends: nothing is answered, but that at the end it was cut short
  unless    origins that refuse it themselves, each with the reason
"""

import json
import pathlib
import socket
import threading
import time
import urllib.parse
import urllib.request

import origins
from nodes import Node

CASES = pathlib.Path(__file__).parent.parent / "data/http1/cases.json"
ANSWER_S = 10.0
#: What concerns one connection, or what only a proxy may say: never passed on.
NEVER = [
    "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "proxy-authorization",
    "expect", "forwarded", "x-forwarded-for", "x-real-ip", "http2-settings",
]


def text_of(pieces):
    if isinstance(pieces, str):
        return pieces
    if len(pieces) == 2 and isinstance(pieces[1], int):
        return pieces[0] * pieces[1]
    return "".join(map(text_of, pieces))


def cuts(data, way):
    """Cuts bytes into what is written at once."""
    if way == "whole":
        return [data]
    # Byte by byte around what matters; a long tail in a few pieces.
    step = 1 if len(data) < 400 else max(7, len(data) // 60)
    return [data[at : at + step] for at in range(0, len(data), step)]


class Client:
    """A connection that reads answers as strictly as they are to be written."""

    def __init__(self, port):
        self.tcp = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.tcp.makefile("rb")

    def write(self, pieces):
        try:
            for n, piece in enumerate(pieces):
                self.tcp.sendall(piece)
                # Without a pause the system would join them.
                if len(pieces) > 1 and n % 3 == 0:
                    time.sleep(0.0002)
        except OSError:
            # Refused before all of it was sent.
            pass

    def answer(self, is_head=False):
        """Reads one answer; returns its status, or nothing at the end."""
        while True:
            line = self.file.readline()
            if not line:
                return None
            if not line.startswith(b"HTTP/1."):
                raise AssertionError(f"no answer: {line[:100]!r}")
            status = int(line[9:12])
            fields = {}
            while (field := self.file.readline().strip()):
                name, _, value = field.partition(b":")
                fields[name.lower()] = value.strip()
            if status >= 200:
                break
        if not is_head:
            if fields.get(b"transfer-encoding") == b"chunked":
                while size := int(self.file.readline(), 16):
                    self.file.read(size + 2)
                self.file.readline()
            else:
                self.file.read(int(fields.get(b"content-length", 0)))
        return status

    def end(self):
        """Ends what is sent; returns the statuses of whatever is answered still."""
        try:
            self.tcp.shutdown(socket.SHUT_WR)
        except OSError:
            return []
        statuses = []
        while status := self.answer():
            statuses.append(status)
        return statuses


def converse(port, case, way):
    """Sends a case; returns the statuses answered, those after the last one expected too."""
    data = text_of(case["send"]).encode("latin-1")
    expected = expected_answers(case)
    client = Client(port)
    writer = None
    try:
        if len(data) > 4096:
            # Answers may come before all of it is written.
            writer = threading.Thread(target=client.write, args=(cuts(data, way),))
            writer.start()
        else:
            client.write(cuts(data, way))
        statuses = []
        is_head = data.startswith(b"HEAD ")
        while len(statuses) < len(expected):
            status = client.answer(is_head)
            if status is None:
                return statuses
            statuses.append(status)
        if "refused" in case:
            # It ends by itself.
            while status := client.answer():
                statuses.append(status)
            return statuses
        return statuses + client.end()
    except TimeoutError:
        return [*statuses, "nothing more"]
    except ConnectionError:
        return statuses
    finally:
        if writer:
            writer.join()
        client.file.close()
        client.tcp.close()


def expected_answers(case):
    answers = list(case.get("answers", [200] * len(case.get("sees", []))))
    if "refused" in case:
        answers.append(case["refused"])
    if case.get("cut"):
        answers.append(400)
    return answers


def differs(seen, wanted, origin):
    """Returns how a request an origin saw is not the one that was sent."""
    target = "/once/app" + (f"?{wanted['query']}" if "query" in wanted else "")
    if (seen.method, seen.target) != (wanted["method"], target):
        return f"the origin saw {seen!r}"
    if seen.body != text_of(wanted["body"]):
        return f"the body is {seen.body[:200]!r}"
    for name, value in wanted.get("has", {}).items():
        if seen.values(name) != [value]:
            return f"{name} is {seen.values(name)}"
    for name in [*wanted.get("hasnt", []), *NEVER]:
        # Trailers are told as such.
        if seen.values(name) or any(it.startswith(f"(trailer) {name}") for it, _ in seen.fields):
            return f"{name} was passed on"
    for name in {"host", *wanted.get("one", [])}:
        if len(seen.values(name)) != 1:
            return f"{name} is {seen.values(name)}"
    if origin == "python" and seen.values("connection"):
        return f"Connection is {seen.values('connection')}"
    return None


def judge(case, statuses, seen, origin):
    """Returns what is wrong with the outcome of a case."""
    expected = expected_answers(case)
    if origin in case.get("unless", {}):
        others = [it for it in seen if it.target != "/once/app"]
        return f"the origin saw {others}" if others else None
    if case.get("waits") and statuses == [*expected, 400]:
        # Told at the end of what was sent.
        statuses = expected
    if statuses != expected:
        return f"answered {statuses}, not {expected}; the origin saw {seen}"
    whole = [it for it in seen if it.whole]
    wanted = case.get("sees", [])
    if len(whole) != len(wanted):
        return f"the origin saw {len(whole)} requests, not {len(wanted)}: {seen}"
    if not case.get("cut") and not case.get("waits") and "answers" not in case and seen != whole:
        return f"the origin saw the beginning of one: {seen}"
    for it, want in zip(whole, wanted):
        if problem := differs(it, want, origin):
            return problem
    return None


def unswitched(node):
    """Asks within a session, where a wish to switch is passed on, for a web socket; the origin
    answers as if nothing was wished. Returns what a request sent along comes to."""
    url = f"http://127.0.0.1:{node.public}/apps/edge~2flong/session"
    with urllib.request.urlopen(url, data=b"", timeout=ANSWER_S) as answer:
        app = urllib.parse.urlsplit(json.load(answer)["app_url"])
    asked = (
        f"GET {app.path}/ws HTTP/1.1\r\nHost: {app.netloc}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        f"GET /smuggled HTTP/1.1\r\nHost: {app.netloc}\r\n\r\n"
    )
    return converse(node.public, {"send": asked, "answers": [200, 404]}, "whole")


def judge_unswitched(node, record):
    record.take()
    statuses = unswitched(node)
    targets = [it.target for it in record.take()]
    if statuses != [200, 404] or targets != ["/long/session", "/long/session/s1/app/ws"]:
        return f"answered {statuses}; the origin saw {targets}"
    return None


def run_origin(name, node, recorder, cases, tally, lock):
    record = recorder.record
    for way in ("whole", "dripped"):
        for case in cases:
            record.take()
            try:
                statuses = converse(node.public, case, way)
            except (AssertionError, OSError, ValueError) as error:
                statuses = [repr(error)]
            if case.get("cut") or case.get("waits"):
                # What the origin has of it ends a moment later.
                time.sleep(0.01)
            problem = judge(case, statuses, record.take(), name)
            with lock:
                tally.check(f"{name}, {way}: {case['name']} ({case['rule']})", problem)
    problem = judge_unswitched(node, record)
    with lock:
        tally.check(f"{name}: a switch asked for in vain, then a request (RFC 9110 7.8)", problem)
    # What came late came of something.
    time.sleep(1)
    with lock:
        tally.check(f"{name}: nothing late", record.take() and "something came late")


def run(processes, binary, tally):
    cases = json.loads(CASES.read_text())
    begun, lock, threads, started = time.monotonic(), threading.Lock(), [], []
    for name in origins.NAMES:
        origin = origins.start(name, processes)
        if not origin:
            print(f"edge-suite: skipped: {name} is not installed")
            continue
        started.append((name, *origin))
    for name, origin, recorder in started:
        node = Node(processes, binary, name, origin)
        arguments = (name, node, recorder, cases, tally, lock)
        threads.append(threading.Thread(target=run_origin, args=arguments, daemon=True))
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    took = time.monotonic() - begun
    print(f"  http1: {len(cases)} cases, whole and dripped, {len(threads)} origins, {took:.0f} s")
