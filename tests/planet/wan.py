"""A small wide-area network in user space: hosts in network namespaces of their own, joined by
TUN devices; every packet waits as long as its pair of regions is apart.

Needs root, or a user namespace that makes one. Nothing of the machine's own network is touched,
and all of it is gone with the process.
"""

import ctypes
import fcntl
import heapq
import ipaddress
import json
import os
import random
import select
import socket
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCADDRT, SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS = (
    0x890B, 0x8916, 0x891C, 0x8913, 0x8914)
IFF_UP, RTF_UP = 0x1, 0x1
PACKET_MAX = 2048
#: Packets under way; what comes beyond them is lost, as on a router.
UNDER_WAY_MAX = 100_000

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def enter(namespace):
    """Moves this thread into a network namespace."""
    checked(libc.setns(namespace, CLONE_NEWNET), "setns")


class Host:
    """One machine: an address in a network namespace of its own."""

    def __init__(self, name, region, address):
        self.name, self.region, self.address = name, region, address
        self.tun, self.namespace = None, None

    def build(self):
        """Makes its namespace and its device; this thread is in it afterwards."""
        checked(libc.unshare(CLONE_NEWNET), "unshare")
        self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"wan", IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
            address = struct.pack("16sH2x4s8x", b"wan", socket.AF_INET, packed(self.address))
            fcntl.ioctl(it, SIOCSIFADDR, address)
            mask = struct.pack("16sH2x4s8x", b"wan", socket.AF_INET, b"\xff" * 4)
            fcntl.ioctl(it, SIOCSIFNETMASK, mask)
            for device in (b"lo", b"wan"):
                flags = fcntl.ioctl(it, SIOCGIFFLAGS, struct.pack("16sH22x", device, 0))
                flags = struct.unpack_from("H", flags, 16)[0] | IFF_UP
                fcntl.ioctl(it, SIOCSIFFLAGS, struct.pack("16sH22x", device, flags))
            everywhere(it)


def packed(address):
    return ipaddress.IPv4Address(address).packed


def everywhere(it):
    """Routes everything over the device: struct rtentry, with its pointer to the name."""
    name = ctypes.create_string_buffer(b"wan")
    any_ip = struct.pack("H14x", socket.AF_INET)
    route = struct.pack(
        "@L16s16s16sHhLPhPLLH", 0, any_ip, any_ip, any_ip, RTF_UP, 0, 0, 0, 0,
        ctypes.addressof(name), 0, 0, 0)
    fcntl.ioctl(it, SIOCADDRT, route)


class Wan:
    """The ways between hosts; runs in a process of its own and is told things by the other."""

    def __init__(self, hosts, way_ms, jitter_ms=1.0, loss=0.0, seed=1):
        """`way_ms` maps a pair of regions to their round trip; within one it is 1 ms."""
        self.hosts, self.jitter_ms, self.loss = hosts, jitter_ms, loss
        self.way_ms, self.draw = way_ms, random.Random(seed)
        self.cut, self.pid, self.ours = set(), None, None

    def start(self):
        """Builds every host and begins to carry; returns once packets pass."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        for host in self.hosts:
            host.build()
        enter(home)
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.ours.close()
                self.carry(theirs)
            except KeyboardInterrupt:
                pass
            finally:
                os._exit(0)
        theirs.close()
        for host in self.hosts:
            os.close(host.tun)
            host.tun = None

    def stop(self):
        self.ours.close()
        os.waitpid(self.pid, 0)

    def tell(self, **what):
        """Has the network change: cut=[a, b] and heal=[a, b] by host or region, loss=share."""
        self.ours.sendall(json.dumps(what).encode() + b"\n")
        if self.ours.recv(1) != b".":
            raise RuntimeError("the network is gone")

    def carry(self, told):
        by_address = {packed(it.address): it for it in self.hosts}
        by_tun = {it.tun: it for it in self.hosts}
        poll = select.epoll()
        for tun in by_tun:
            poll.register(tun, select.EPOLLIN)
        poll.register(told.fileno(), select.EPOLLIN)
        under_way, number = [], 0
        while True:
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, _, tun, packet = heapq.heappop(under_way)
                try:
                    os.write(tun, packet)
                except OSError:
                    pass  # its queue is full: lost
            wait = max(under_way[0][0] - now, 0) if under_way else 1.0
            for fd, _ in poll.poll(wait):
                if fd == told.fileno():
                    if not self.listen(told):
                        return
                    continue
                source = by_tun[fd]
                for _ in range(64):
                    try:
                        packet = os.read(fd, PACKET_MAX)
                    except BlockingIOError:
                        break
                    to = by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                    if to is None or len(under_way) >= UNDER_WAY_MAX or self.is_lost(source, to):
                        continue
                    number += 1
                    due = time.monotonic() + self.delay(source, to)
                    heapq.heappush(under_way, (due, number, to.tun, packet))

    def listen(self, told):
        data = told.recv(65536)
        for line in data.splitlines():
            what = json.loads(line)
            self.loss = what.get("loss", self.loss)
            if "cut" in what:
                self.cut.add(frozenset(what["cut"]))
            if "heal" in what:
                self.cut.discard(frozenset(what["heal"]))
            told.sendall(b".")
        return bool(data)

    def is_lost(self, a, b):
        pairs = ((x, y) for x in (a.name, a.region) for y in (b.name, b.region))
        return any(frozenset(it) in self.cut for it in pairs) or self.draw.random() < self.loss

    def delay(self, a, b):
        apart = 1.0 if a.region == b.region else self.way_ms[frozenset((a.region, b.region))]
        return (apart / 2 + self.draw.expovariate(1.0) * self.jitter_ms / 2) / 1000


def possible():
    """Says why there can be no planet here, or nothing."""
    if sys.platform != "linux":
        return "Linux alone has network namespaces"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error}"
    pid = os.fork()
    if pid == 0:
        try:
            Host("x", "x", "10.0.0.1").build()
            os._exit(0)
        except OSError as error:
            sys.stderr.write(f"{error}\n")
            os._exit(1)
    return None if os.waitpid(pid, 0)[1] == 0 else "no right to make a network namespace"
