"""What runs on the planet: the mesh's CA, nodes and orchestrators, each on a host of its own."""

import itertools
import os
import pathlib
import re
import secrets
import signal
import subprocess
import time

import wan
from clients import At, admin, get

#: Round trips between regions in milliseconds: medians of one cloud's backbone, rounded, as in
#: tests/data/steering.
WAYS_MS = {
    frozenset(pair): ms for *pair, ms in [
        ("FRA", "NYC", 95), ("FRA", "SIN", 169), ("FRA", "SYD", 254), ("FRA", "LON", 21),
        ("NYC", "SIN", 226), ("NYC", "SYD", 198), ("NYC", "LON", 79), ("SIN", "SYD", 99),
        ("SIN", "LON", 159), ("SYD", "LON", 247),
    ]
}
#: A client of each region, at an address the embedded database puts there.
CLIENTS = {"FRA": "91.0.0.10", "NYC": "12.0.0.10", "SIN": "118.200.0.10", "SYD": "1.128.0.10"}
READY_S = 30.0


def until(what, so, seconds=READY_S):
    """Waits until `so` returns something true, and returns it with the seconds it took."""
    begun, found = time.monotonic(), None
    while time.monotonic() - begun < seconds:
        try:
            if found := so():
                return found, time.monotonic() - begun
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Process:
    """A process on a host; it is ended with the planet."""

    def __init__(self, host, log, command, cwd):
        self.host, self.log = host, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [str(it) for it in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                cwd=cwd, start_new_session=True,
                preexec_fn=lambda: wan.enter(host.namespace))

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, seconds=15.0):
        """Asks it to stop and waits; returns the seconds it took."""
        begun = time.monotonic()
        # Its group is its own, and holds whoever took its place.
        self.tell_group(signal.SIGCONT)
        self.tell_group(signal.SIGTERM)
        while self.tell_group(0) and time.monotonic() - begun < seconds:
            self.process.poll()
            time.sleep(0.02)
        self.tell_group(signal.SIGKILL)
        self.process.wait()
        return time.monotonic() - begun

    def tell_group(self, number):
        """Signals all of its group; tells whether there was anybody."""
        try:
            os.killpg(self.process.pid, number)
            return True
        except ProcessLookupError:
            return False


class Node:
    """One node with its host, its folder and its process."""

    def __init__(self, planet, name, region, host, binary):
        self.planet, self.name, self.region, self.host = planet, name, region, host
        self.binary = binary
        self.folder = planet.folder / name
        self.folder.mkdir()
        self.url = f"http://{host.address}:8936"
        self.running = None

    def write(self, seeds, orchestrators):
        text = (
            f'[node]\nname = "{self.name}"\nregion = "{self.region}"\n'
            f'public_url = "{self.url}"\nticket_key = "{self.planet.folder}/ticket.key"\n'
            '[listen]\npublic = "0.0.0.0:8936"\nadmin = "127.0.0.1:7936"\n'
            f'[mesh]\nlisten = "0.0.0.0:7935"\naddress = "{self.host.address}:7935"\n'
            'trust_domain = "mesh.planet"\nca = "ca.pem"\ncert = "node.pem"\nkey = "node.key"\n'
            'revoked = "revoked.pem"\noperator = "operator.pub"\ndata = "data"\n'
            f'enrolment = "{self.planet.ca_at}"\n'
        )
        for peer in seeds:
            text += (f'[[peer]]\nnode = "{peer.name}"\naddress = "{peer.host.address}:7935"\n'
                     f'url = "{peer.url}"\n')
        for it in orchestrators:
            text += f'[[orchestrator]]\nuri = "https://{it.host.address}:8935"\nregion = "{it.region}"\n'
        (self.folder / "node.toml").write_text(text)
        (self.folder / "data").mkdir(exist_ok=True)

    def enrol(self):
        said = self.planet.ca("token", "--node", self.name)
        token = re.search(r"portolan-join:\S+", said)[0]
        At(self.host)(
            subprocess.run,
            [self.binary, "node", "enroll", "--ca", self.planet.ca_at, "--ca-fp",
             self.planet.fingerprint, "--token", token, "--dir", self.folder],
            check=True, capture_output=True, timeout=30)

    def start(self):
        command = [self.binary, "run", "--config", self.folder / "node.toml"]
        self.running = self.planet.run(self.host, self.name, command, self.folder)

    def is_ready(self):
        status, said = admin(self, "/readyz")
        return status == 200 and said

    def peers(self):
        return admin(self, "/v1/peers")[1]["peers"]

    def orders(self):
        return admin(self, "/v1/orders")[1]

    def peers_up(self):
        return sum(it["standing"] == "up" for it in self.peers())

    def log(self):
        return (self.planet.folder / f"{self.name}.log").read_text(errors="replace")


class Orchestrator:
    def __init__(self, planet, region, host):
        self.region, self.host = region, host
        self.running = planet.run(
            host, host.name,
            [planet.binary, "orchestrator", "--listen", f"{host.address}:8935", "--region", region,
             "--work", "5ms"], planet.folder)


class Planet:
    """Regions with a node, orchestrators and a client each, and the CA in the first of them.
    Every second node is of the `other` binary, if there is one: an older or newer version."""

    def __init__(self, binary, folder, regions, per_region=2, loss=0.0, other=None):
        self.binary, self.folder = pathlib.Path(binary).resolve(), pathlib.Path(folder)
        self.other = pathlib.Path(other).resolve() if other else self.binary
        self.regions, self.per_region, self.started = regions, per_region, []
        hosts, number = [], 0

        def host(name, region, address=None):
            nonlocal number
            number += 1
            hosts.append(wan.Host(name, region, address or f"203.0.113.{number}"))
            return hosts[-1]

        self.ca_host = host("ca", regions[0])
        self.node_hosts = {it: host(f"{it.lower()}-1", it) for it in regions}
        self.orch_hosts = [
            host(f"orch-{it.lower()}-{n}", it) for it in regions for n in range(per_region)]
        self.clients = {it: host(f"client-{it.lower()}", it, CLIENTS[it]) for it in regions}
        self.ca_at = f"{self.ca_host.address}:7934"
        self.wan = wan.Wan(hosts, WAYS_MS, loss=loss)

    def __enter__(self):
        self.wan.start()
        (self.folder / "ticket.key").write_text(secrets.token_hex(32))
        os.chmod(self.folder / "ticket.key", 0o600)
        said = self.ca("init", "--trust-domain", "mesh.planet")
        self.fingerprint = re.search(r"sha256:[0-9a-f]{64}", said)[0]
        self.run(self.ca_host, "ca", [self.binary, "ca", "--dir", self.folder / "ca", "serve",
                                      "--listen", f"0.0.0.0:{self.ca_at.split(':')[1]}"], self.folder)
        self.orchestrators = [Orchestrator(self, it.region, it) for it in self.orch_hosts]
        binaries = itertools.cycle([self.binary, self.other])
        self.nodes = [Node(self, it.name, region, it, binary)
                      for (region, it), binary in zip(self.node_hosts.items(), binaries)]
        for number, node in enumerate(self.nodes):
            # All but the first know the first alone, and learn of the rest.
            node.write(self.nodes[:1] if number else [], self.orchestrators)
            until(f"{node.name} is enrolled", lambda node=node: node.enrol() or True)
            node.start()
        for node in self.nodes:
            until(f"{node.name} is ready", node.is_ready)
        return self

    def __exit__(self, *_):
        for it in reversed(self.started):
            it.end()
        self.wan.stop()

    def run(self, host, name, command, cwd):
        self.started.append(Process(host, self.folder / f"{name}.log", command, cwd))
        return self.started[-1]

    def ca(self, *command):
        """Runs `portolan ca`; returns what it says."""
        done = subprocess.run([self.binary, "ca", "--dir", self.folder / "ca", *command],
                              capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise AssertionError(f"portolan ca {' '.join(command)}: {done.stderr}")
        return done.stdout

    def order(self, node, *command):
        """Gives a command of the operator at a node; returns what that says, as JSON."""
        done = At(node.host)(
            subprocess.run, [self.binary, *command, "--json", "--key", self.folder / "ca/operator.key"],
            capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise AssertionError(f"portolan {' '.join(command)}: {done.stderr}")
        return done.stdout

    def entries(self, region):
        """The nodes as a client of `region` tries them: as /v1/resolve of its own tells."""
        own = next(it for it in self.nodes if it.region == region)
        others = [it for it in self.nodes if it is not own]
        others.sort(key=lambda it: WAYS_MS[frozenset((it.region, region))])
        return [it.url for it in [own, *others]]
