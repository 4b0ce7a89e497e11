"""What testssl.sh finds at the TLS listener, and certificates swapped under load."""

import json
import shutil
import socket
import ssl
import subprocess
import time

import origins
from beside import Beside
from nodes import Node, openssl

SWAPS = 50
#: How long testssl.sh may take: twice what it does.
SCAN_S = 120
#: Findings that no server can help, each with its reason.
ALLOWED = {
    "engine_problem": "the scanner's own openssl, which lacks a cipher of GOST",
    "DNS_CAArecord": "a record of the DNS, which loopback has none of",
    "certificate_transparency": "a log of public CAs only",
}

LEAF = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
crlDistributionPoints = URI:http://crl.test/edge.crl
"""


class Authority:
    """A CA made for this run, and server certificates of it."""

    def __init__(self, folder):
        self.folder, self.made = folder, 0
        self.cert, self.key = folder / "ca.pem", folder / "ca.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", 365, "-subj", "/O=Portolan/CN=Edge suite CA", "-keyout", self.key,
            "-out", self.cert, "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )
        (folder / "leaf.ext").write_text(LEAF)

    def certify(self, cert, key):
        """Writes a new certificate with a new key; returns its serial number."""
        self.made += 1
        request = self.folder / "leaf.csr"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{key}.new")
        openssl("req", "-new", "-key", f"{key}.new", "-subj", "/CN=localhost", "-out", request)
        serial = int.from_bytes(b"\x4d" + self.made.to_bytes(15, "big"), "big")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-days", 90,
            "-set_serial", serial, "-extfile", self.folder / "leaf.ext", "-out", f"{cert}.new",
        )
        shutil.move(f"{key}.new", key)
        shutil.move(f"{cert}.new", cert)
        return serial


def scan(node, authority, tally, again=True):
    """Lets testssl.sh look for everything that needs no outside world."""
    if not shutil.which("testssl"):
        print("edge-suite: skipped: testssl.sh is not installed")
        return
    found = node.processes.folder / "testssl.json"
    command = [
        "testssl", "--quiet", "--color", 0, "--warnings", "off", "--nodns", "min", "--ip", "127.0.0.1",
        "--add-ca", authority.cert, "--jsonfile", found, "--protocols", "--server-defaults",
        "--server-preference", "--fs", "--headers", "--vulnerable", f"localhost:{node.secure}",
    ]
    begun = time.monotonic()
    try:
        process = node.processes.start("testssl", *map(str, command))
        process.wait(SCAN_S)
        findings = json.loads(found.read_text())
    except (subprocess.TimeoutExpired, OSError, ValueError) as error:
        node.processes.end(process)
        tally.check("tls: testssl.sh", f"did not end well: {error}")
        return
    if again and any(it["severity"] == "WARN" and it["id"] not in ALLOWED for it in findings):
        # Not a finding: the scanner could not look, as happens on a busy machine.
        found.unlink()
        return scan(node, authority, tally, again=False)
    judged = {}
    for it in findings:
        judged[it["severity"]] = judged.get(it["severity"], 0) + 1
        name = it["id"].split(" ")[0]
        if it["severity"] not in ("OK", "INFO") and name not in ALLOWED:
            tally.check(f"tls: {it['id']}", f"{it['severity']}: {it['finding']}")
    enough = None if judged.get("OK", 0) >= 20 else f"only {judged} findings"
    tally.check("tls: testssl.sh found something", enough)
    print(f"  testssl.sh: {judged}, {time.monotonic() - begun:.0f} s", flush=True)


class Handshakes(Beside):
    """New connections, one after the other, each of which must be made and trusted."""

    def __init__(self, port, authority):
        super().__init__(n_threads=4)
        self.port = port
        self.context = ssl.create_default_context(cafile=authority.cert)
        self.made, self.problems, self.serials = 0, [], set()

    def run(self):
        while not self.over.is_set():
            try:
                self.serials.add(self.once())
                self.made += 1
            except (OSError, AssertionError) as error:
                self.problems.append(repr(error))

    def once(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as tcp:
            with self.context.wrap_socket(tcp, server_hostname="localhost") as tls:
                serial = int(tls.getpeercert()["serialNumber"], 16)
                tls.sendall(b"GET /discovery HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := tls.recv(4096):
                    answer += piece
                assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
        return serial


def swap(node, authority, cert, key, tally):
    """Takes new certificates while connections are made."""
    unseen = 0
    with Handshakes(node.secure, authority) as handshakes:
        for n in range(SWAPS):
            serial = authority.certify(cert, key)
            if n % 2:
                node.reload()
            else:
                command = [node.binary, "reload", "--admin", f"http://127.0.0.1:{node.admin}"]
                subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=20)
            unseen += handshakes.once() != serial
    tally.check("tls: swaps: every connection is made", handshakes.problems[:3])
    tally.check("tls: swaps: the new certificate is seen at once", unseen and f"{unseen} times not")
    enough = None if handshakes.made >= SWAPS else f"only {handshakes.made} connections"
    tally.check("tls: swaps: under load", enough)
    seen, errors = len(handshakes.serials), len(handshakes.problems)
    print(f"  {SWAPS} swaps, {handshakes.made} connections, {seen} certificates, {errors} errors")


def refuse(node, cert, key, authority, tally):
    """What may not be spoken is not, and a certificate that cannot be used changes nothing."""
    context = ssl.create_default_context(cafile=authority.cert)
    with socket.create_connection(("127.0.0.1", node.secure), 5) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            before = tls.getpeercert()["serialNumber"]
            tally.check("tls: version", None if tls.version() == "TLSv1.3" else tls.version())
    other = f"{key}.other"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", other)
    kept = key.read_bytes()
    shutil.move(other, key)
    try:
        node.reload()
        answer = "a key that does not fit was taken"
    except OSError:
        answer = None
    tally.check("tls: a key that does not fit is refused", answer)
    key.write_bytes(kept)
    with socket.create_connection(("127.0.0.1", node.secure), 5) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            after = tls.getpeercert()["serialNumber"]
    tally.check("tls: the certificate in use stays", None if after == before else after)


def run(processes, binary, tally):
    origin, _recorder = origins.start("python", processes)
    authority = Authority(processes.folder)
    cert, key = processes.folder / "edge.pem", processes.folder / "edge.key"
    authority.certify(cert, key)
    node = Node(processes, binary, "tls", origin, tls=(cert, key))
    scan(node, authority, tally)
    swap(node, authority, cert, key, tally)
    refuse(node, cert, key, authority, tally)
