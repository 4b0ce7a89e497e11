"""What the mesh costs a node: requests that go through a peer, and links to peers.

Forwarding: two nodes of one mesh and a third by itself, before the same origins. From the
entry's address the origins are slow, so that its way leads through the peer, whose own is not.
"""

import http.client
import re
import secrets
import statistics
import subprocess
import time

import rig
from rig import CALL, ORIGINS, PARTS, PORTOLAN, WORK

# name: clients' port, admin port, port of the mesh, the address it connects from
NODES = {
    "alone": (18011, 18021, None, "127.2.0.1"),
    "entry": (18012, 18022, 18032, "127.1.0.1"),
    "peer": (18013, 18023, 18033, "127.2.0.1"),
}
CA_PORT = 18040
BENCH = (18014, 18024, 18034)
FOLDER = WORK / "mesh"


def forward(r, report, n, seconds, interval):
    """Compares a forwarded call with one relayed by the node it entered by."""
    enrol(r)
    r.start("origin")
    for name in NODES:
        (FOLDER / name / "node.toml").write_text(config(name))
        command = [PORTOLAN, "run", "--config", FOLDER / name / "node.toml"]
        r.run(name, command, rig.RELAY_CORE, FOLDER / name)
        rig.until_open(NODES[name][0], r.running[name], name)
    for name in ("alone", "entry"):
        until_via(r, name, "peer" if name == "entry" else None)
    for size, connections, what in ((1024, 32, "1 KiB call and answer"), (1 << 20, 8, "1 MiB upload")):
        case = "forward-small" if size == 1024 else "forward-upload"
        report.say(f"\n{what}, {connections} connections, alone and through a peer ({case})")
        compare(r, report, case, n, (connections, seconds, size), interval)
    report.say("\nServer-sent events, alone and through a peer (forward-stream)")
    seen = {"alone": [], "entry": []}
    for _ in range(5):
        for name, delays in seen.items():
            address = f"127.0.0.1:{NODES[name][0]}"
            delays += rig.stream(address, rig.STREAM, 1)["first_us"]
    for name, delays in seen.items():
        report.found("forward-stream", f"{shown(name)}: us to the first event", *interval(delays))


def compare(r, report, case, n, load, interval):
    spent = {"alone": [], "entry": [], "peer": []}
    rates = {"alone": [], "entry": []}
    for turn in range(n + 1):
        for name in rates:
            used = {it: rig.cpu_ns(r.pid(it)) for it in spent}
            carried = passed()
            done = rig.calls(name, *load)
            if done["wrong"]:
                raise SystemExit(f"{case}, {name}: {done['wrong']}")
            if turn == 0:
                # Whoever is first opens connections and fills caches.
                continue
            wanted = done["requests"] if name == "entry" else 0
            if passed() - carried < wanted * 0.99:
                raise SystemExit(f"{case}: {passed() - carried} of {wanted} went through the peer")
            each = {it: (rig.cpu_ns(r.pid(it)) - used[it]) / done["requests"] / 1e3 for it in used}
            rates[name].append(done)
            if name == "alone":
                spent["alone"].append(each["alone"])
            else:
                spent["entry"].append(each["entry"])
                spent["peer"].append(each["peer"])
    for name, values in spent.items():
        report.found(case, f"{name}: CPU us a request", *interval(values))
    both = [a + b for a, b in zip(spent["entry"], spent["peer"])]
    for what, values in (("entry", spent["entry"]), ("entry and peer", both)):
        ratios = [a / b for a, b in zip(values, spent["alone"])]
        report.found(case, f"{what}: CPU / a direct relay's", *interval(ratios))
    for name, rounds in rates.items():
        rate = [it["requests"] / it["seconds"] for it in rounds]
        report.found(case, f"{shown(name)}: requests/s, all on one core", *interval(rate))
        for at in ("p50_ms", "p99_ms"):
            middle = statistics.median(it[at] for it in rounds)
            report.found(case, f"{shown(name)}: {at[:3]} ms", middle)


def shown(name):
    return "through a peer" if name == "entry" else "alone"


def links(r, report, quick):
    """Prints what each link adds to a node: resident memory, and the share of a core."""
    report.say("\nLinks to peers, each a whole mesh of its own in one other process (links)")
    (FOLDER / "bench").mkdir(parents=True, exist_ok=True)
    command = [PARTS, "peers", FOLDER / "bench", f"127.0.0.1:{BENCH[2]}"]
    holder = subprocess.Popen(["taskset", "-c", str(rig.LOAD_CORE), *map(str, command)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        said(holder, "ready")
        (FOLDER / "bench" / "node.toml").write_text(node_toml("bench", BENCH, "bench.mesh"))
        command = [PORTOLAN, "run", "--config", FOLDER / "bench" / "node.toml"]
        # What is let go of is given back at once, so that what is resident is what is in use.
        r.run("bench", command, rig.RELAY_CORE, FOLDER / "bench", MIMALLOC_PURGE_DELAY="0")
        rig.until_open(BENCH[0], r.running["bench"], "bench")
        watched(r, report, holder, 5 if quick else 15)
    finally:
        holder.stdin.close()
        holder.wait(timeout=30)


def watched(r, report, holder, seconds):
    """Figures are of what each link adds to the first: with it all is set up that all share."""
    pid = r.pid("bench")

    def look():
        """After a moment of rest: nanoseconds a second, resident bytes."""
        time.sleep(3)
        began, used = time.monotonic(), rig.cpu_ns(pid)
        time.sleep(seconds)
        return (rig.cpu_ns(pid) - used) / (time.monotonic() - began), r.memory("bench")

    def add(case, n, now, before):
        report.found("links", f"{case}: CPU of each, % of a core", (now[0] - before[0]) / n / 1e7)
        report.found("links", f"{case}: KiB of each", (now[1] - before[1]) / n / 1024)

    order(holder, "links 1")
    first = look()
    report.found("links", "one link: CPU of the node, % of a core", first[0] / 1e7)
    report.found("links", "one link: MiB of the node", first[1] / (1 << 20))
    idle = first
    for n in LINKS:
        order(holder, f"links {n}")
        idle = look()
        add(f"{n} links, idle", n - 1, idle, first)
    order(holder, f"rows {ROWS}")
    # Every row is held once, and each again for a while, before memory stands still.
    time.sleep(5)
    add(f"{LINKS[-1]} links, {ROWS} rows/s on each, on top", LINKS[-1], look(), idle)


def order(holder, line):
    holder.stdin.write(line + "\n")
    holder.stdin.flush()
    said(holder, "done")


def said(holder, word):
    if holder.stdout.readline().strip() != word:
        raise SystemExit("the peers ended before they were asked to")


def enrol(r):
    """Makes a CA, and has both nodes of the mesh join by it."""
    ca = FOLDER / f"ca-{secrets.token_hex(4)}"

    def portolan(*command):
        done = subprocess.run([PORTOLAN, *command], capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise SystemExit(f"portolan {' '.join(map(str, command))}: {done.stderr}")
        return done.stdout

    fingerprint = portolan("ca", "--dir", ca, "init", "--trust-domain", "bench.mesh")
    fingerprint = re.search(r"sha256:[0-9a-f]{64}", fingerprint)[0]
    serve = [PORTOLAN, "ca", "--dir", ca, "serve", "--listen", f"127.0.0.1:{CA_PORT}"]
    r.run("ca", serve, rig.LOAD_CORE, WORK)
    rig.until_open(CA_PORT, r.running["ca"], "ca")
    key = secrets.token_hex(32)
    for name in NODES:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / "ticket.key").write_text(key)
        (folder / "ticket.key").chmod(0o600)
        if name != "alone":
            token = re.search(r"portolan-join:\S+", portolan("ca", "--dir", ca, "token", "--node", name))
            portolan("node", "enroll", "--ca", f"127.0.0.1:{CA_PORT}", "--ca-fp", fingerprint,
                     "--token", token[0], "--dir", folder)


def config(name):
    public, admin, mesh, source = NODES[name]
    text = node_toml(name, (public, admin, mesh), "bench.mesh", 'ticket_key = "ticket.key"\n')
    if name == "entry":
        text += f'[[peer]]\nnode = "peer"\naddress = "127.0.0.1:{NODES["peer"][2]}"\n'
    text += f'[upstream]\nfrom = "{source}"\n'
    first = int(ORIGINS[0].rpartition(":")[2])
    for port in range(first, first + ORIGINS[1]):
        text += f'[[orchestrator]]\nuri = "http://127.0.0.1:{port}"\nregion = "FRA"\n'
    return text


def node_toml(name, ports, domain, more=""):
    public, admin, mesh = ports
    text = (f'[node]\nname = "{name}"\nregion = "FRA"\n'
            f'public_url = "http://127.0.0.1:{public}"\n{more}'
            f'[listen]\npublic = "127.0.0.1:{public}"\nadmin = "127.0.0.1:{admin}"\n'
            '[location]\nnamed_by = ["127.0.0.1"]\n[log]\njournal = "usage.log"\n')
    if mesh:
        text += (f'[mesh]\nlisten = "127.0.0.1:{mesh}"\ntrust_domain = "{domain}"\n'
                 'ca = "ca.pem"\ncert = "node.pem"\nkey = "node.key"\n')
    return text


def until_via(r, name, wanted):
    """Waits until the node's requests go through `wanted`, or through nobody."""
    in_a_row = 0
    for _ in range(600):
        try:
            call = http.client.HTTPConnection("127.0.0.1", NODES[name][0], timeout=5)
            call.request("POST", CALL, b"{}")
            answer = call.getresponse()
            good = answer.status == 200 and answer.getheader("portolan-via") == wanted
            in_a_row = in_a_row + 1 if good else 0
        except OSError:
            in_a_row = 0
        if in_a_row == 20:
            return
        time.sleep(0.1)
    raise SystemExit(f"{name}: requests never went through {wanted}; see {WORK}/{name}.log")


def passed():
    """Requests the peer has passed on so far."""
    call = http.client.HTTPConnection("127.0.0.1", NODES["peer"][1], timeout=5)
    call.request("GET", "/metrics")
    text = call.getresponse().read().decode()
    found = re.search(r'^portolan_carried_total\{result="passed"\} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


LINKS = (8, 32)
ROWS = 100
