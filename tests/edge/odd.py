"""Requests and frames of HTTP/2 that are not well formed, and how each may end."""

import struct

import frames as h2
from floods import GET, headers
from nodes import CALL

#: A request may be refused with its stream, with its connection, or by a status.
REFUSED = {"reset", "goaway", 400}
#: An error of the connection ends that.
BROKEN = {"goaway", "closed"}


def plain(*more):
    return headers(1, block=h2.request(CALL, more=more))


def pseudo(*pairs):
    return headers(1, block=h2.fields(*pairs))


def body(length, data):
    block = h2.request(CALL, "POST", more=[("content-length", length)])
    return headers(1, h2.END_HEADERS, block) + h2.frame(h2.DATA, h2.END_STREAM, 1, data)


def setting(key, value):
    return h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", key, value))


METHOD, SCHEME, PATH = (":method", "GET"), (":scheme", "https"), (":path", CALL)
AUTHORITY = (":authority", "localhost")


def with_path(path):
    return pseudo(METHOD, SCHEME, AUTHORITY, (":path", path))


def requests():
    """Yields the name, the rule, what is sent after the settings, and how it may end."""
    rule = "RFC 9113 8.2"
    for name, value in [
        ("connection", "close"), ("connection", "content-length"), ("transfer-encoding", "chunked"),
        ("keep-alive", "5"), ("proxy-connection", "close"), ("upgrade", "h2c"), ("te", "gzip"),
    ]:
        yield f"{name}: {value}", f"{rule}.2", plain((name, value)), REFUSED
    for name in ["X-Upper", "x y", "x:y", "x\0", "", "x\r\ny", "x_y", "caf\u00e9"]:
        yield f"a field named {name!r}", f"{rule}.1", plain((name, "z")), REFUSED
    for value in ["a\r\nx: y", "a\0", "a\nb", "a\rb"]:
        yield f"a value {value!r}", f"{rule}.1", plain(("x", value)), REFUSED
    yield "a body longer than told", "RFC 9113 8.1.1", body("3", b"abcdef"), REFUSED
    yield "a body shorter than told", "RFC 9113 8.1.1", body("6", b"abc"), REFUSED
    sent = plain(("content-length", "3"), ("content-length", "4"))
    yield "a length told twice", "RFC 9113 8.1.1", sent, REFUSED
    yield "a length that is no number", "RFC 9113 8.1.1", body("+3", b"abc"), REFUSED
    yield "a length as a list", "RFC 9113 8.1.1", body("3, 3", b"abc"), REFUSED
    yield "another host than the authority", "RFC 9113 8.3.1", plain(("host", "b")), REFUSED
    rule = "RFC 9113 8.3"
    sent = pseudo(METHOD, SCHEME, (":authority", "u@localhost"), PATH)
    yield "an authority with userinfo", f"{rule}.1", sent, {400}
    yield "no method", rule, pseudo(SCHEME, AUTHORITY, PATH), REFUSED
    yield "no path", rule, pseudo(METHOD, SCHEME, AUTHORITY), REFUSED
    yield "no scheme", rule, pseudo(METHOD, AUTHORITY, PATH), REFUSED
    yield "an empty path", rule, with_path(""), REFUSED
    yield "a path without a slash", rule, with_path("x"), REFUSED | {404}
    yield "a method twice", rule, pseudo(METHOD, METHOD, SCHEME, AUTHORITY, PATH), REFUSED
    yield "a path twice", rule, pseudo(METHOD, SCHEME, AUTHORITY, PATH, PATH), REFUSED
    yield "an authority twice", rule, pseudo(METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH), REFUSED
    yield "a status", rule, pseudo(METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")), REFUSED
    sent = pseudo(METHOD, SCHEME, AUTHORITY, PATH, (":x", "y"))
    yield "a pseudo field of no meaning", rule, sent, REFUSED
    sent = pseudo(METHOD, SCHEME, AUTHORITY, ("x", "y"), PATH)
    yield "a pseudo field after others", rule, sent, REFUSED
    # Left out as the path is read, which leaves one reading.
    yield "a fragment in the path", rule, with_path(CALL + "#x"), REFUSED | {200}
    yield "a space in the path", rule, with_path(CALL + "?a b"), REFUSED
    yield "a line end in the path", rule, with_path(CALL + "?\r\nx: y"), REFUSED
    sent = pseudo((":method", "GET /"), SCHEME, AUTHORITY, PATH)
    yield "a space in the method", rule, sent, REFUSED
    yield "CONNECT", "RFC 9113 8.5", pseudo((":method", "CONNECT"), AUTHORITY), REFUSED | {405}
    rule = "RFC 9113 6"
    sent = h2.frame(h2.WINDOW, 0, 0, b"\x7f\xff\xff\xff")
    yield "a window that grows too far", f"{rule}.9.1", sent, BROKEN
    sent = h2.frame(h2.WINDOW, 0, 0, bytes(4))
    yield "a window that grows by nothing", f"{rule}.9", sent, BROKEN
    yield "an initial window too large", f"{rule}.5.2", setting(4, 2**31), BROKEN
    yield "frames too small to allow", f"{rule}.5.2", setting(5, 100), BROKEN
    yield "a push neither on nor off", f"{rule}.5.2", setting(2, 2), BROKEN
    yield "settings of odd size", f"{rule}.5", h2.frame(h2.SETTINGS, 0, 0, b"12345"), BROKEN
    yield "a ping of odd size", f"{rule}.7", h2.frame(h2.PING, 0, 0, b"1234"), BROKEN
    yield "a ping on a stream", f"{rule}.7", h2.frame(h2.PING, 0, 1, b"portolan"), BROKEN
    yield "data on no stream", f"{rule}.1", h2.frame(h2.DATA, 0, 0, b"x"), BROKEN
    yield "data on an idle stream", f"{rule}.1", h2.frame(h2.DATA, 0, 1, b"x"), BROKEN | {"reset"}
    yield "fields on an even stream", "RFC 9113 5.1.1", headers(2), BROKEN
    yield "a frame too long", "RFC 9113 4.2", h2.frame(h2.DATA, 0, 1, bytes(16385)), BROKEN
    sent = h2.frame(5, 4, 1, bytes([0, 0, 0, 2]) + GET)
    yield "a push by the client", "RFC 9113 8.4", sent, BROKEN
    yield "a continuation of nothing", f"{rule}.10", h2.frame(h2.CONTINUATION, 4, 1, GET), BROKEN
    sent = headers(1, 1) + h2.frame(h2.PING, 0, 0, b"portolan")
    yield "another frame within fields", f"{rule}.10", sent, BROKEN
    sent = headers(1, block=GET + b"\xff\xff\xff\xff\x0f")
    yield "fields that cannot be decoded", "RFC 7541 2.3.3", sent, BROKEN
    sent = headers(1, block=h2.integer(2**20, 5, 0x20) + GET)
    yield "a table larger than agreed", "RFC 7541 6.3", sent, BROKEN
    sent = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 8
    yield "HTTP/1.1 after the settings", "RFC 9113 4.1", sent, BROKEN
