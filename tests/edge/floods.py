"""Floods of HTTP/2: what a client may send without end, as far as the frames allow it.

Of a flood two things matter: everybody else is served, and memory stays within bounds.
"""

import struct
import time

import frames as h2
from nodes import CALL

FLOOD_S = 4.0
GET = h2.request(CALL)


def streams():
    """Ids of a client's streams."""
    return range(1, 2**31, 2)


def flood(port, begin, piece, seconds=FLOOD_S, settings=b"", read=True):
    """Opens connections one after the other and sends on each what `piece` makes, numbered,
    until the node ends it; returns how many pieces went out, on how many connections."""
    sent, connections, deadline = 0, 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        with h2.Connection(port, settings) as connection:
            connections += 1
            connection.send(begin)
            for n, stream in enumerate(streams()):
                if time.monotonic() > deadline or not connection.send(piece(stream)):
                    break
                sent += 1
                if read and n % 64 == 0:
                    connection.drain()
        # One that is ended at once is not to spin.
        time.sleep(0.01)
    return f"{sent} pieces on {connections} connections"


def headers(stream, flags=h2.END_HEADERS | h2.END_STREAM, block=GET):
    return h2.frame(h2.HEADERS, flags, stream, block)


def rapid_reset(port):
    """Requests that are taken back at once."""
    reset = struct.pack(">I", 8)

    def many(stream):
        ids = range(stream * 16 + 1, stream * 16 + 33, 2)
        return b"".join(headers(it) + h2.frame(h2.RST, 0, it, reset) for it in ids)

    return flood(port, b"", many)


def provoked_resets(port):
    """Requests that the node is made to reset, by a window that grows by nothing or too far."""
    def piece(stream):
        return headers(stream) + h2.frame(h2.WINDOW, 0, stream, bytes(4))

    def too_far(stream):
        return headers(stream) + h2.frame(h2.WINDOW, 0, stream, struct.pack(">I", 2**31 - 1))

    first = flood(port, b"", piece, FLOOD_S / 2)
    return f"{first}; {flood(port, b'', too_far, FLOOD_S / 2)}"


def continuations(port):
    """Fields that never end."""
    begin = headers(1, h2.END_STREAM)
    more = h2.frame(h2.CONTINUATION, 0, 1, h2.field("x", "y" * 16000))
    return flood(port, begin, lambda _: more)


def empty_continuations(port):
    """Fields that never end, and have nothing in them."""
    begin = headers(1, h2.END_STREAM)
    return flood(port, begin, lambda _: h2.frame(h2.CONTINUATION, 0, 1) * 100)


def settings(port):
    """Settings, each to be acknowledged, of which nothing is read."""
    one = h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", h2.INITIAL_WINDOW, 65535))
    return flood(port, b"", lambda _: one * 100, read=False)


def pings(port):
    """Pings, each to be answered, of which nothing is read."""
    return flood(port, b"", lambda _: h2.frame(h2.PING, 0, 0, b"portolan") * 100, read=False)


def header_bomb(port):
    """One long field in the table, and thousands of references to it."""
    long = h2.field("x", "y" * 3900, index=True)
    block = GET + long + b"\xbe" * 8000
    return flood(port, b"", lambda stream: headers(stream, block=block))


def tables(port):
    """A table that is to grow and shrink all the time."""
    sizes = h2.integer(0, 5, 0x20) + h2.integer(4096, 5, 0x20)
    block = sizes + GET + h2.field("x", "y" * 3900, True)
    return flood(port, b"", lambda stream: headers(stream, block=block))


def empty_data(port):
    """A body of nothing, in many frames."""
    begin = headers(1, h2.END_HEADERS, h2.request(CALL, "POST"))
    return flood(port, begin, lambda _: h2.frame(h2.DATA, 0, 1) * 100)


def no_window(port):
    """Answers asked for that may not be sent."""
    window = struct.pack(">HI", h2.INITIAL_WINDOW, 0)
    return flood(port, b"", headers, settings=window)


def window_steps(port):
    """Windows that change all the time while answers wait for them."""
    def piece(stream):
        size = struct.pack(">HI", h2.INITIAL_WINDOW, stream % 3)
        return headers(stream) + h2.frame(h2.SETTINGS, 0, 0, size)

    return flood(port, b"", piece)


def half_requests(port):
    """Bodies that are announced and never come."""
    block = h2.request(CALL, "POST", more=[("content-length", "1000")])
    return flood(port, b"", lambda stream: headers(stream, h2.END_HEADERS, block))


def priorities(port):
    """Priorities of streams that are not there."""
    def many(stream):
        return h2.frame(h2.PRIORITY, 0, stream, struct.pack(">IB", 0, 16)) * 100

    return flood(port, b"", many)


ALL = [
    rapid_reset, provoked_resets, continuations, empty_continuations, settings, pings, header_bomb,
    tables, empty_data, no_window, window_steps, half_requests, priorities,
]
