"""HTTP/2 by hand: frames, and the part of HPACK that needs no table of Huffman codes."""

import socket
import ssl
import struct

from nodes import trusting_nobody

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, INITIAL_WINDOW = 1, 4
STATIC = {(":method", "GET"): 2, (":method", "POST"): 3, (":scheme", "https"): 7, (":path", "/"): 4}
STATIC_NAMES = {":authority": 1, ":method": 2, ":path": 4, ":scheme": 6}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, bits, first):
    """A number of HPACK with a prefix of `bits`, below which stands `first`."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = [first | top], value - top
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def text(value):
    data = value.encode("latin-1")
    return integer(len(data), 7, 0) + data


def field(name, value, index=False):
    """One field; with `index` the other side is to keep it in its table."""
    if (name, value) in STATIC:
        return integer(STATIC[name, value], 7, 0x80)
    first, bits = (0x40, 6) if index else (0, 4)
    if name in STATIC_NAMES:
        return integer(STATIC_NAMES[name], bits, first) + text(value)
    return bytes([first]) + text(name) + text(value)


def fields(*pairs):
    return b"".join(field(name, value) for name, value in pairs)


def request(path, method="GET", authority="localhost", more=()):
    return fields(
        (":method", method), (":scheme", "https"), (":authority", authority), (":path", path), *more
    )


class Connection:
    """A client's side of a connection over TLS."""

    def __init__(self, port, settings=b""):
        tcp = socket.create_connection(("127.0.0.1", port), 5)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = trusting_nobody(["h2"]).wrap_socket(tcp, server_hostname="localhost")
        assert self.tls.selected_alpn_protocol() == "h2"
        self.held = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    def send(self, data):
        """Sends; tells whether the other side still takes anything."""
        try:
            self.tls.sendall(data)
            return True
        except (OSError, ssl.SSLError):
            return False

    def frames(self, seconds=5.0):
        """Yields frames until the connection ends or nothing comes for some time."""
        self.tls.settimeout(seconds)
        while True:
            while len(self.held) >= 9 and len(self.held) >= 9 + (size := int.from_bytes(self.held[:3], "big")):
                kind, flags = self.held[3], self.held[4]
                stream = int.from_bytes(self.held[5:9], "big")
                payload, self.held = self.held[9 : 9 + size], self.held[9 + size :]
                yield kind, flags, stream, payload
            try:
                piece = self.tls.recv(65536)
            except (OSError, ssl.SSLError):
                return
            if not piece:
                return
            self.held += piece

    def drain(self):
        """Reads what there is, and waits for nothing."""
        self.tls.settimeout(0.001)
        try:
            while self.tls.recv(65536):
                pass
        except (OSError, ssl.SSLError):
            pass
        self.tls.settimeout(5)

    def outcome(self, stream, seconds=5.0):
        """Returns how a stream ends: its status, `reset`, `goaway`, or `closed`."""
        for kind, _flags, at, payload in self.frames(seconds):
            if kind == GOAWAY:
                return "goaway"
            if kind == RST and at == stream:
                return "reset"
            if kind == HEADERS and at == stream:
                return status(payload)
        return "closed"


def status(block):
    """Returns the status that begins the fields of an answer."""
    known = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
    at = 0
    while block[at] & 0xE0 == 0x20:
        at += 1
    if block[at] & 0x80:
        return known.get(block[at] & 0x7F)
    # A literal with the name of the table, its digits plain or in Huffman codes: 0-2 are five
    # bits, 3-9 six, all of them in order.
    size, coded = block[at + 1] & 0x7F, block[at + 1] & 0x80
    data = block[at + 2 : at + 2 + size]
    if not coded:
        return int(data)
    bits, digits = "".join(f"{it:08b}" for it in data), ""
    while len(digits) < 3:
        if (value := int(bits[:5], 2)) < 3:
            digits, bits = digits + str(value), bits[5:]
        else:
            digits, bits = digits + str(int(bits[:6], 2) - 0b011001 + 3), bits[6:]
    return int(digits)
