"""Instructions of a request, counted by valgrind: the same on any machine, however busy."""

import collections
import subprocess

import profile_parts
import rig
from rig import Rig, WORK

CONNECTIONS = 32
BY_CLOCK = "background, by the clock"


def count(name, n):
    """Counts `n` and then twice `n` requests; the difference has neither the start nor anything
    else that is done once. What is done by the clock is counted apart: under valgrind a second
    holds a hundredth of the requests it otherwise does."""
    WORK.mkdir(parents=True, exist_ok=True)
    pattern = WORK / f"calls-{name}"
    for old in WORK.glob(f"{pattern.name}*"):
        old.unlink()
    body = WORK / "kib.body"
    body.write_text("x" * 1024)
    wrap = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={pattern}"]
    with Rig() as r:
        r.start("origin")
        r.start(name, wrap)
        load(name, body, 500)
        control(r.pid(name), "-z")
        for requests in (n, 2 * n):
            load(name, body, requests)
            control(r.pid(name), "-d")
    few, many = (profile_parts.by_part(f"{pattern}.{at}") for at in (1, 2))
    parts = collections.Counter({part: (many[part] - few[part]) / n for part in {*few, *many}})
    clock = parts.pop(BY_CLOCK, 0)
    return {"each": sum(parts.values()), "clock": clock, "parts": parts.most_common()}


def load(name, body, n):
    address = f"http://127.0.0.1:{rig.PORTS[name][0]}{rig.CALL}"
    said = rig.on_load_core(
        ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"-n{n}", "-d", str(body),
         "-H", "Portolan-Client-Ip: 84.17.34.7", address], 120)
    if f" {n} succeeded" not in said:
        raise SystemExit(f"{name}: not every request was answered:\n{said}")


def control(pid, what):
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)
