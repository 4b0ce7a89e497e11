"""Floods and odd requests of HTTP/2, with an ordinary client served throughout."""

import floods
import frames as h2
import odd
import origins
from memory import Watched
from nodes import Node, certificate, trusting_nobody
from ordinary import Ordinary


def run_floods(node, tally):
    client = trusting_nobody(["http/1.1"])
    for attack in floods.ALL:
        with Watched(node) as memory, Ordinary(node.secure, client) as ordinary:
            sent = attack(node.secure)
        name = attack.__name__.replace("_", " ")
        tally.check(f"h2: {name}: others are served", ordinary.problem())
        tally.check(f"h2: {name}: memory", memory.problem())
        print(f"  {name}: {sent}; {ordinary.told()}; {memory.told()}", flush=True)


def run_odd(node, record, tally):
    for name, rule, sent, may in odd.requests():
        record.take()
        with h2.Connection(node.secure) as connection:
            connection.send(sent)
            outcome = connection.outcome(1, 2.0)
        whole = [it for it in record.take() if it.whole]
        if outcome == 200 and [it.target for it in whole] == ["/once/app"]:
            whole = []
        problem = None if outcome in may else f"ends with {outcome}, not {sorted(map(str, may))}"
        tally.check(f"h2: {name} ({rule})", problem or (whole and f"the origin saw {whole}"))


def run(processes, binary, tally):
    tls = certificate(processes.folder, "edge")
    origin, recorder = origins.start("python", processes)
    node = Node(processes, binary, "odd", origin, tls=tls)
    with h2.Connection(node.secure) as connection:
        connection.send(floods.headers(1))
        tally.check("h2: a request", None if (it := connection.outcome(1)) == 200 else f"{it}")
    run_odd(node, recorder.record, tally)
    plain = origins.start_plain(processes)
    if not plain:
        print("edge-suite: skipped: floods (no nginx)")
        return
    node = Node(processes, binary, "floods", plain, tls=tls)
    # A first round of anything takes memory that later ones use again.
    with Ordinary(node.secure, trusting_nobody(["http/1.1"]), 0.0):
        floods.rapid_reset(node.secure)
    run_floods(node, tally)
