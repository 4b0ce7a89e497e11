"""An ordinary client, from an address of its own, that must be served whatever others do."""

import socket
import time

from beside import Beside
from nodes import CALL

#: Attackers come from 127.0.0.1; limits of one address are not to meet this one.
ADDRESS = "127.0.0.2"
ANSWER_S = 5.0


class Ordinary(Beside):
    """Makes one request after the other, each on a connection of its own, in a `with` block."""

    def __init__(self, port, tls=None, every_s=0.05):
        super().__init__()
        self.port, self.tls, self.every_s = port, tls, every_s
        self.served, self.problems, self.slowest = 0, [], 0.0

    def run(self):
        while not self.over.wait(self.every_s):
            begun = time.monotonic()
            try:
                self.once()
                self.served += 1
            except (OSError, AssertionError) as error:
                self.problems.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def once(self):
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_S, (ADDRESS, 0)) as tcp:
            if self.tls:
                with self.tls.wrap_socket(tcp, server_hostname="localhost") as tls:
                    return self.ask(tls)
            return self.ask(tcp)

    def ask(self, stream):
        stream.sendall(
            f"POST {CALL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Content-Length: 5\r\n\r\nhello".encode()
        )
        answer = b""
        while piece := stream.recv(4096):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"served"), answer[:200]

    def problem(self):
        """Returns what is wrong with how it was served."""
        if self.problems:
            return f"{len(self.problems)} of an ordinary client's requests failed: {self.problems[0]}"
        return None if self.served else "an ordinary client was not served at all"

    def told(self):
        return f"{self.served} others served, {self.slowest * 1000:.0f} ms at most"
