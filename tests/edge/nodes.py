"""Processes of the edge suite: nodes of Portolan, and whatever else it starts, ended by id."""

import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time
import urllib.request

READY_S = 30.0
#: The app that every origin of the suite offers, and where it is called at a node.
APP = "edge/once"
CALL = "/apps/edge~2fonce/app"


def free_ports(n):
    """Returns ports that were free a moment ago."""
    held = [socket.socket() for _ in range(n)]
    for it in held:
        it.bind(("127.0.0.1", 0))
    ports = [it.getsockname()[1] for it in held]
    for it in held:
        it.close()
    return ports


def until(what, so, seconds=READY_S):
    """Waits until `so` returns something, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = so()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Processes:
    """What was started here; all of it ends with the `with` block."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for it in reversed(self.started):
            if it.poll() is None:
                it.terminate()
        for it in self.started:
            try:
                it.wait(10)
            except subprocess.TimeoutExpired:
                self.end(it)

    def start(self, name, *command):
        with open(self.folder / f"{name}.log", "ab") as log:
            it = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # A process group of its own, to be ended with all it started.
                start_new_session=True,
            )
        self.started.append(it)
        return it

    def end(self, process):
        """Ends one of them, and what it started itself."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")


def certificate(folder, name, days=30):
    """Makes a certificate signed by itself; returns the paths of it and of its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", str(days), "-subj", "/CN=localhost", "-keyout", key, "-out", cert,
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    return cert, key


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Node:
    """A node in front of one origin."""

    def __init__(self, processes, binary, name, origin, more="", tls=None):
        """Starts it and waits until it serves; `origin` is a URL, `tls` a certificate and key."""
        self.binary, self.name, self.processes = binary, name, processes
        self.public, self.admin, self.secure = free_ports(3)
        text = (
            f'[node]\nname = "{name}"\nregion = "FRA"\n'
            f'[listen]\npublic = "127.0.0.1:{self.public}"\nadmin = "127.0.0.1:{self.admin}"\n'
            f'[[orchestrator]]\nuri = "{origin}"\nregion = "FRA"\n{more}\n'
        )
        if tls:
            text += (
                f'[[listener]]\naddress = "127.0.0.1:{self.secure}"\n'
                f'cert = "{tls[0]}"\nkey = "{tls[1]}"\n'
            )
        self.config = processes.folder / f"{name}.toml"
        self.config.write_text(text)
        self.process = processes.start(f"node-{name}", binary, "run", "--config", self.config)
        until(f"node {name} serves (see {processes.folder}/node-{name}.log)", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"node {self.name} ended: {self.processes.log('node-' + self.name)}")
        try:
            url = f"http://127.0.0.1:{self.public}/discovery"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return any(it["runners"] for it in json.load(answer))
        except OSError:
            return False

    def memory_kib(self):
        """Returns what of its memory is resident."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError(f"node {self.name} is gone")

    def reload(self):
        url = f"http://127.0.0.1:{self.admin}/v1/reload"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as it:
            return it.read()


def trusting_nobody(alpn):
    """A TLS client that takes any certificate and speaks `alpn`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(alpn)
    return context


class Tally:
    """What passed and what did not."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, name, problem=None):
        """Counts one check; `problem` says what is wrong with it."""
        if problem:
            self.failed += 1
            print(f"  FAILED  {name}: {problem}", flush=True)
        else:
            self.passed += 1
        return not problem
