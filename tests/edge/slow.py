"""Clients that dawdle, and clients that hurry, with an ordinary one served throughout."""

import re
import shutil
import subprocess

import origins
from memory import Watched
from nodes import CALL, Node, certificate, trusting_nobody
from ordinary import Ordinary

CONNECTIONS, SECONDS = 300, 10
#: Of one address so many less than come; heads and idle times as short as the suite is.
LIMITS = "[limits]\nconnections_each = 200\nhead_s = 2\nidle_s = 5\n"
ATTACKS = {
    "slow headers": ["-H", "-i", "1"],
    "slow body": ["-B", "-i", "1", "-s", "100000"],
    "slow read": ["-X", "-k", "4", "-w", "1", "-y", "64", "-n", "2", "-z", "1"],
}


def dawdle(node, options, folder):
    """Runs slowhttptest for a while; returns what it says of its connections."""
    url = f"http://127.0.0.1:{node.public}{CALL if '-B' in options else '/discovery'}"
    command = [
        "slowhttptest", "-c", CONNECTIONS, "-r", CONNECTIONS // 2, "-l", SECONDS, "-p", 3,
        "-u", url, *options,
    ]
    run = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=SECONDS * 3, cwd=folder
    )
    plain = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", run.stdout)
    told = dict(re.findall(r"^(pending|connected|error|closed): +(\d+)", plain, re.MULTILINE)[-4:])
    why = re.search(r"Exit status: *(.*)", plain)
    return " ".join(f"{n} {name}," for name, n in told.items()) + f" {why[1]}" if why else ""


def hurry(node, options, url):
    """Runs h2load; returns how many requests it made a second, and what is wrong."""
    command = ["h2load", "--warm-up-time=0", *options, url, "-d", str(node.config), "--header=:method: POST"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored", run.stdout)
    rate = re.search(r"([\d.]+) req/s", run.stdout)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", run.stdout)
    if not (found and rate and codes):
        return "", f"h2load says {run.stdout[-300:]} {run.stderr[-300:]}"
    total, succeeded = int(found[1]), int(found[2])
    problem = None if total == succeeded == int(codes[1]) else f"{found[0]}; {codes[0]}"
    return f"{total} requests, {float(rate[1]):.0f} a second", problem


def run(processes, binary, tally):
    origin, _recorder = origins.start("python", processes)
    tls = certificate(processes.folder, "edge")
    node = Node(processes, binary, "slow", origin, LIMITS, tls)
    secure = trusting_nobody(["http/1.1"])
    if shutil.which("slowhttptest"):
        for name, options in ATTACKS.items():
            with Watched(node) as memory, Ordinary(node.public) as ordinary:
                told = dawdle(node, options, processes.folder)
            tally.check(f"slow: {name}: it ran", None if told else "slowhttptest says nothing")
            if name == "slow headers":
                ended = None if "No open connections left" in told else told
                tally.check(f"slow: {name}: they are ended", ended)
            tally.check(f"slow: {name}: others are served", ordinary.problem())
            tally.check(f"slow: {name}: memory", memory.problem())
            print(f"  {name}: {told}; {ordinary.told()}; {memory.told()}", flush=True)
    else:
        print("edge-suite: skipped: slow clients (no slowhttptest)")
    # An origin in this process would answer as slowly as the clients beside it let it.
    plain = origins.start_plain(processes)
    if not plain or not shutil.which("h2load"):
        print("edge-suite: skipped: load (no nginx, or no h2load)")
        return
    node = Node(processes, binary, "load", plain, LIMITS, tls)
    url = f"https://127.0.0.1:{node.secure}{CALL}"
    for name, options in {
        "HTTP/1.1": ["--h1", "-c", "32", "-n", "10000"],
        "HTTP/2": ["-c", "8", "-m", "16", "-n", "10000"],
        "HTTP/2, each connection new": ["-c", "300", "-m", "1", "-n", "300", "-r", "100"],
    }.items():
        with Watched(node) as memory, Ordinary(node.secure, secure) as ordinary:
            told, problem = hurry(node, options, url)
        tally.check(f"load: {name}: all is answered", problem)
        tally.check(f"load: {name}: others are served", ordinary.problem())
        tally.check(f"load: {name}: memory", memory.problem())
        print(f"  load by {name}: {told}; {ordinary.told()}; {memory.told()}", flush=True)
