"""Processes and what they use: starts the relays and the origin, drives loads at them."""

import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
WORK = TARGET / "bench"
PARTS = TARGET / "release" / "examples" / "compare"
PORTOLAN = pathlib.Path(os.environ.get("PORTOLAN_BIN", TARGET / "dist" / "portolan")).resolve()
CALL = "/apps/bench~2fcall/app"
STREAM = "/apps/bench~2fstream/app"
ORIGINS = ("127.0.0.1:18100", 8)
RELAY_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
OTHERS = ("haproxy", "nginx", "relay")

# name: plain port, TLS port
PORTS = {
    "haproxy": (18001, 18441),
    "nginx": (18002, 18442),
    "relay": (18003, None),
    "portolan": (18004, 18444),
    "alone": (18011, None),
    "entry": (18012, None),
}


class Rig:
    """Everything started here, and only that, is ended here."""

    def __init__(self):
        WORK.mkdir(parents=True, exist_ok=True)
        self.running = {}
        descriptors()
        self.tls = has_tls_listener()
        certificate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self.running):
            self.stop(name)

    def start(self, name, wrap=()):
        """Starts a relay, or the origin, pinned to its core."""
        commands = {
            "origin": [PARTS, "origin", ORIGINS[0], str(ORIGINS[1])],
            "relay": [PARTS, "relay", "127.0.0.1:18003", ORIGINS[0], str(ORIGINS[1])],
            "haproxy": ["haproxy", "-db", "-f", HERE / "haproxy.cfg"],
            "nginx": ["nginx", "-p", str(WORK), "-c", WORK / "nginx.conf"],
            "portolan": [PORTOLAN, "run", "--config", WORK / "portolan.toml"],
        }
        shutil.copy(HERE / "nginx.conf", WORK)
        config = (HERE / "portolan.toml").read_text()
        if self.tls:
            config += LISTENER
        (WORK / "portolan.toml").write_text(config)
        core = LOAD_CORE if name == "origin" else RELAY_CORE
        for old in ("usage.log", "nginx.access.log"):
            (WORK / old).unlink(missing_ok=True)
        self.run(name, [*wrap, *commands[name]], core, WORK)
        port = 18100 if name == "origin" else PORTS[name][0]
        until_open(port, self.running[name], name)
        if name == "portolan":
            until_answers(port, self.running[name])

    def run(self, name, command, core, folder, **more):
        """Starts a process pinned to a core; what it says goes to a file."""
        environment = {**os.environ, "TOKIO_WORKER_THREADS": "1", "BENCH_DIR": str(WORK), **more}
        log = open(WORK / f"{name}.log", "wb")
        self.running[name] = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder,
        )

    def stop(self, name):
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM if name in ("origin", *OTHERS) else signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pid(self, name):
        return self.running[name].pid

    def cpu(self, name):
        """Seconds of processor time used so far, by all threads."""
        fields = pathlib.Path(f"/proc/{self.pid(name)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, name):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.pid(name)}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def cpu_ns(pid):
    """Nanoseconds of processor time its threads used so far: finer than ticks."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(it.read_text().split()[0]) for it in threads)


def calls(name, connections, seconds, size=1024):
    """Small or large calls over connections that stay; counts, p99 and what went wrong."""
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
        str(HERE / "call.lua"), f"http://127.0.0.1:{PORTS[name][0]}{CALL}", "--", str(size),
    ]
    said = on_load_core(command, seconds + 20)
    scale = {"us": 1e-3, "ms": 1, "s": 1e3}
    p50, p99 = (re.search(rf" {at}%\s+([\d.]+)(us|ms|s)", said) for at in (50, 99))
    wrong = re.search(r"Non-2xx.*|Socket errors.*", said)
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}
    took = re.search(r"requests in ([\d.]+)(us|ms|s|m)", said)
    return {
        "seconds": float(took[1]) * unit[took[2]],
        "requests": int(re.search(r"(\d+) requests in", said)[1]),
        "p50_ms": float(p50[1]) * scale[p50[2]],
        "p99_ms": float(p99[1]) * scale[p99[2]],
        "wrong": wrong[0] if wrong else None,
    }


def handshakes(name, seconds):
    to = f"127.0.0.1:{PORTS[name][1]}"
    said = on_load_core([str(PARTS), "handshakes", to, CALL, "8", str(seconds)], seconds + 20)
    answered = json.loads(said)["answered"]
    return {"requests": answered, "seconds": seconds, "p99_ms": None, "wrong": None}


def stream(address, path, streams):
    return json.loads(on_load_core([str(PARTS), "stream", address, path, str(streams)], 60))


def on_load_core(command, seconds):
    command = ["taskset", "-c", str(LOAD_CORE), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=WORK)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    return done.stdout


def idle_memory(r, name, n):
    """What `n` connections add to the resident memory of a relay, in bytes of each."""
    # What the load before left over is given back first, or was never used.
    r.stop(name)
    r.start(name)
    calls(name, 32, 1)
    before = r.memory(name)
    command = ["taskset", "-c", str(LOAD_CORE), PARTS, "idle", f"127.0.0.1:{PORTS[name][0]}",
               CALL, str(n)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if holder.stdout.readline().strip() != b"ready":
        raise SystemExit(f"{name} did not take {n} connections")
    after = r.memory(name)
    holder.communicate()
    return (after - before) / n


def descriptors():
    """Raises the limit of open files as far as allowed; returns it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def has(tool):
    return shutil.which(tool) is not None


def idle_share(before, after):
    """The share of the load core that was idle between two readings."""
    spent = [b - a for a, b in zip(before, after)]
    return (spent[3] + spent[4]) / max(sum(spent), 1)


def core_times():
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{LOAD_CORE} "):
            return [int(it) for it in line.split()[1:9]]
    raise SystemExit("this machine has no second core to put the load on")


def until_open(port, process, name):
    for _ in range(600):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"{name} does not listen on {port}; see {WORK / name}.log")


def until_answers(port, process):
    """Waits until the node knows its orchestrators, all of which it checks at the start."""
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            call = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            call.request("POST", CALL, b"{}")
            if call.getresponse().status == 200:
                time.sleep(1)
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the node serves nothing; see {WORK}/portolan.log")


def certificate():
    """A self-signed P-256 certificate, the same for all."""
    if (WORK / "both.pem").exists():
        return
    key, pem = WORK / "bench.key", WORK / "bench.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "3650", "-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench",
         "-keyout", key, "-out", pem],
        check=True, capture_output=True,
    )
    (WORK / "both.pem").write_text(pem.read_text() + key.read_text())


def has_tls_listener():
    return "listener" in (ROOT / "src" / "config" / "file.rs").read_text()


LISTENER = """
[[listener]]
address = "127.0.0.1:18444"
cert = "bench.pem"
key = "bench.key"
"""
