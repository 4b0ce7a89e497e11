"""The load a program is built after: what a node does most, each for a few seconds.

A program that counts where it goes (`scripts/dist`) is run under it. What is not trained is
built for size, so that every kind of traffic a node carries has its turn.
"""

import sys

import mesh
import rig
from rig import CALL, STREAM, WORK, Rig


class Quiet:
    """Takes what a bench would report: figures of a counting program mean nothing."""

    def say(self, _text):
        pass

    def found(self, *_figures, **_more):
        pass


def main():
    body = WORK / "kib.body"
    with Rig() as r:
        body.write_text("x" * 1024)
        r.start("origin")
        r.start("portolan")
        plain, secure = (f"127.0.0.1:{port}" for port in rig.PORTS["portolan"])
        for connections, size in ((32, 1024), (256, 1024), (8, 1 << 20), (32, 16)):
            told(rig.calls("portolan", connections, SECONDS, size), f"{connections} x {size}")
        told(rig.handshakes("portolan", SECONDS), "handshakes")
        for more in ([], ["--h1"]):
            h2load(f"https://{secure}{CALL}", body, *more)
        rig.stream(plain, STREAM, 8)
    with Rig() as r:
        mesh.forward(r, Quiet(), 1, 1, lambda _values: (0,))


def told(done, what):
    if done["wrong"]:
        sys.exit(f"train: {what}: {done['wrong']}")


def h2load(url, body, *more):
    said = rig.on_load_core(
        ["h2load", "-t1", "-c8", "-m8", f"-n{CALLS}", "-d", str(body), *more,
         "-H", "Portolan-Client-Ip: 84.17.34.7", url], 60)
    if f" {CALLS} succeeded" not in said:
        sys.exit(f"train: not every call of h2load was answered:\n{said}")


SECONDS = 3
CALLS = 20_000

if __name__ == "__main__":
    main()
