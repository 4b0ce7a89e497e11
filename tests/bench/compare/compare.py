"""Portolan beside HAProxy, nginx and a bare relay, on this machine and in this minute.

Each relay has one core to itself in turn; loads and origin share the other. Processor time per
request is compared round by round, so that what disturbs a round disturbs all of it.
"""

import argparse
import json
import math
import signal
import statistics
import sys

import instructions
import mesh
import rig
from rig import Rig, idle_share

ALL = ("haproxy", "nginx", "relay", "portolan")
TWO = ("haproxy", "portolan")
# A rate and a percentile count only when the load generator had time to spare.
IDLE_MIN = 0.15


class Report:
    """What was found, for people or as lines of JSON."""

    def __init__(self, as_json):
        self.as_json, self.missed = as_json, []

    def say(self, text):
        if not self.as_json:
            print(text, flush=True)

    def found(self, case, what, value, low=None, high=None, bar=None, noisy=True, **more):
        """One figure. It holds its bar, or misses it; a noisy one whose interval has the bar
        within does neither."""
        holds = None if bar is None else value <= bar
        open_ = holds is False and noisy and low is not None and low <= bar
        verdict = {None: "", True: "holds", False: "open" if open_ else "MISSED"}[holds]
        if verdict == "MISSED":
            self.missed.append(f"{case}: {what}")
        if self.as_json:
            row = {"case": case, "what": what, "value": value, "low": low, "high": high,
                   "bar": bar, "verdict": verdict.lower(), **more}
            print(json.dumps(row), flush=True)
            return
        interval = f" [{low:.3g}, {high:.3g}]" if low is not None else ""
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        verdict = verdict and f"   bar {bar:,g}: {verdict}"
        print(f"  {what:<44} {shown}{interval}{verdict}", flush=True)


def interval(values):
    """The median of `values` and an interval of order statistics that holds the true one in
    at least 95 of 100 cases; with too few values, the whole range."""
    ordered, n = sorted(values), len(values)
    cut = 0
    while 2 * sum(math.comb(n, k) for k in range(cut + 1)) / 2**n <= 0.05 and cut + 1 <= n // 2:
        cut += 1
    low = max(cut - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def rounds(r, report, case, relays, n, drive, bar=None):
    """Drives each of `relays` in turn, `n` times over, and compares processor time."""
    spent = {name: [] for name in relays}
    rates = {name: [] for name in relays}
    for _ in range(n):
        for name in relays:
            before, used = rig.core_times(), r.cpu(name)
            done = drive(name)
            used, idle = r.cpu(name) - used, idle_share(before, rig.core_times())
            if done["wrong"]:
                raise SystemExit(f"{case}, {name}: {done['wrong']}")
            spent[name].append(used / done["requests"] * 1e6)
            rates[name].append((done["requests"] / done["seconds"], done["p99_ms"], idle))
    for name in relays:
        report.found(case, f"{name}: CPU us a request", *interval(spent[name]))
        quiet = [it for it in rates[name] if it[2] > IDLE_MIN]
        share = statistics.median(it[2] for it in rates[name])
        if len(quiet) * 2 > n and all(it[1] is not None for it in quiet):
            rate, p99 = (statistics.median(it[at] for it in quiet) for at in (0, 1))
            report.found(case, f"{name}: requests/s", rate, load_core_idle=share)
            report.found(case, f"{name}: p99 ms", p99, load_core_idle=share)
        else:
            report.say(f"  {name + ': rate, p99':<44} not counted: the load core was idle for "
                       f"{share:.0%} only")
    for name in relays:
        if name != "haproxy":
            ratios = [a / b for a, b in zip(spent[name], spent["haproxy"])]
            limit = bar if name == "portolan" else None
            report.found(case, f"{name}: CPU / HAProxy's", *interval(ratios), bar=limit)


def small(r, report, n, seconds):
    # Most hangs on it, and neighbours on a shared machine disturb it most.
    n = 2 * n - 1
    for connections in (32, 256):
        case = f"small-{connections}"
        report.say(f"\n1 KiB call and answer, {connections} connections ({case})")
        drive = lambda name: rig.calls(name, connections, seconds)
        rounds(r, report, case, ALL, n, drive, bar=1.4)


def upload(r, report, n, seconds):
    report.say("\n1 MiB upload, 8 connections (upload)")
    rounds(r, report, "upload", TWO, n, lambda name: rig.calls(name, 8, seconds, 1 << 20), bar=0.95)


def tls(r, report, n, seconds):
    report.say("\nTLS 1.3 handshake and one small GET, a connection each (tls)")
    if not r.tls:
        report.say("  skipped: this tree has no TLS listener")
        return
    rounds(r, report, "tls", TWO, n, lambda name: rig.handshakes(name, seconds), bar=0.6)


def idle(r, report, quick):
    wanted = 2_000 if quick else 10_000
    n = min(wanted, rig.descriptors() - 500)
    report.say(f"\nIdle connections, each used once, {n:,} of {wanted:,} (idle)")
    for name in ("relay", "portolan"):
        used = rig.idle_memory(r, name, n)
        bar = 28 if name == "portolan" else None
        report.found("idle", f"{name}: KiB a connection", used / 1024, bar=bar, noisy=False)


def stream(r, report, streams):
    report.say("\nServer-sent events, 100 in 10 ms steps (stream)")
    paths = {"direct": (rig.ORIGINS[0], "/stream")}
    for name in ALL:
        # Only a node has a path of its own for an orchestrator's app.
        path = rig.STREAM if name == "portolan" else "/stream"
        paths[name] = (f"127.0.0.1:{rig.PORTS[name][0]}", path)
    seen = {name: {"first_us": [], "later_us": []} for name in paths}
    for _ in range(3):
        for name, (address, path) in paths.items():
            for key, values in rig.stream(address, path, streams).items():
                seen[name][key] += values
    for name, delays in seen.items():
        for key, what in (("first_us", "first event"), ("later_us", "each further one")):
            mid = statistics.median(delays[key])
            p99 = statistics.quantiles(delays[key], n=100)[98]
            late = sum(it > 35_000 for it in delays[key]) / len(delays[key])
            report.found("stream", f"{name}: us to the {what}, p50", mid)
            report.found("stream", f"{name}: us to the {what}, p99", p99)
            if name == "portolan":
                direct = statistics.median(seen["direct"][key])
                report.found("stream", f"{name}: us added to the {what}", mid - direct)
                # Nagle against delayed acknowledgements holds events back for 40 ms each.
                report.found("stream", f"{name}: share later than 35 ms, {what}", late, bar=0.01)


def counted(report, quick):
    report.say("\nInstructions a request in user mode, 1 KiB call and answer (instructions)")
    if not rig.has("valgrind"):
        report.say("  skipped: no valgrind here")
        return
    for name in ("relay", "portolan"):
        found = instructions.count(name, 1000 if quick else 3000)
        bar = 48_000 if name == "portolan" else None
        report.found("instructions", f"{name}: instructions", found["each"], bar=bar, noisy=False)
        if name == "portolan":
            # The bar is where this is to get; this is what no change may go above.
            report.found("instructions", "portolan: no more than now", found["each"],
                         bar=INSTRUCTIONS_MAX, noisy=False)
        if found["clock"] >= 1:
            report.found("instructions", f"{name}: left out, as they go by the clock", found["clock"])


def profiled(report):
    report.say("Instructions of one request by part, 1 KiB call and answer")
    for name in ("relay", "portolan"):
        report.say(f"\n{name}")
        found = instructions.count(name, 3000)
        for part, each in found["parts"]:
            report.found(f"profile-{name}", part, each)


# A twentieth above what a request takes in a plain release build now, in a short count, where more
# of what goes by the clock falls on each: it rises only with a commit that says why.
INSTRUCTIONS_MAX = 71_000
CASES = ("small", "upload", "tls", "idle", "stream", "forward", "links", "instructions")
# These start nodes of their own.
APART = ("forward", "links", "instructions")


def main():
    asked = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    asked.add_argument("--json", action="store_true", help="lines of JSON instead of a table")
    asked.add_argument("--quick", action="store_true", help="3 short rounds: a look, no verdict")
    asked.add_argument("--only", choices=CASES, help="one case")
    asked.add_argument("--check", nargs="?", const="all", choices=("all", "now"),
                       help="exit 1 when a bar is missed, or only that of today's instructions")
    asked.add_argument("--profile", action="store_true", help="where a request's time goes")
    args = asked.parse_args()
    # Whoever ends this ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to stop"))
    report = Report(args.json)
    if args.profile:
        return profiled(report)
    n, seconds = (3, 1) if args.quick else (11, 2)
    chosen = (args.only,) if args.only else CASES
    if any(case not in APART for case in chosen):
        measure(report, chosen, n, seconds, args.quick)
    if "forward" in chosen:
        with Rig() as r:
            mesh.forward(r, report, n, seconds, interval)
    if "links" in chosen:
        with Rig() as r:
            mesh.links(r, report, args.quick)
    if "instructions" in chosen:
        counted(report, args.quick)
    judged = {None: [], "all": report.missed,
              "now": [it for it in report.missed if it.endswith("no more than now")]}
    for what in judged[args.check]:
        print(f"bench: missed: {what}", file=sys.stderr)
    return sys.exit(1 if judged[args.check] else 0)


def measure(report, chosen, n, seconds, quick):
    with Rig() as r:
        for name in ("origin", *ALL):
            r.start(name)
        for name in ALL:
            rig.calls(name, 32, 1)
        if "small" in chosen:
            small(r, report, n, seconds)
        if "upload" in chosen:
            upload(r, report, n, seconds)
        if "tls" in chosen:
            tls(r, report, n, seconds)
        if "stream" in chosen:
            stream(r, report, 1 if quick else 3)
        if "idle" in chosen:
            idle(r, report, quick)


if __name__ == "__main__":
    main()
