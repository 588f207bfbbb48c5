"""What the cases have in common: raw ends in the lab's namespaces, and what the lab says about a packet.

Nothing here waits for a time to pass: a packet has arrived somewhere, or the lab has counted it as discarded.
"""

import ctypes
import http.client
import json
import os
import select
import socket
import subprocess
import time
from collections import Counter

from scapy.layers.inet import ICMP, IP, TCP, UDP

# How long anything may take that should come at once.
PATIENCE = 20
ETH_P_IP = 0x0800
CLONE_NEWNET = 0x40000000
OUTGOING = 4
MARKER = 7777
# The lab's NAT gateway, as the internet sees it.
NAT_ADDRESS = "203.0.113.20"

LIBC = ctypes.CDLL(None, use_errno=True)


class End:
    """A namespace's device: sends what it is given, byte for byte, and keeps what comes in."""

    def __init__(self, namespace, device):
        self.namespace, self.device = namespace, device
        self.socket = self.inside(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        )
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((device, ETH_P_IP))
        self.socket.setblocking(False)
        self.inbox = []

    def inside(self, doing):
        """Does something in the namespace: a socket that is made there stays there."""
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            enter(there)
            return doing()
        finally:
            enter(own)
            os.close(there)
            os.close(own)

    def mute(self):
        """Keeps the kernel from seeing, and so from answering, what comes in."""
        rules = "add table ip mute; add chain ip mute everything { type filter hook prerouting priority -400; policy drop; }"
        subprocess.run(["ip", "netns", "exec", self.namespace, "nft", rules], check=True)

    def send(self, packet):
        self.socket.sendto(bytes(packet), (self.device, ETH_P_IP, 0, 0, b""))

    def look(self):
        """Takes what has come in so far into the inbox."""
        while True:
            try:
                data, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                return
            if address[2] != OUTGOING:
                self.inbox.append(data)

    def take(self, is_it=lambda packet: True):
        """The first packet in the inbox that `is_it`, without waiting."""
        self.look()
        for at, data in enumerate(self.inbox):
            if is_it(IP(data)):
                return IP(self.inbox.pop(at))
        return None

    def wait(self, what, is_it=lambda packet: True):
        """The same, waiting for it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            packet = self.take(is_it)
            if packet is not None:
                return packet
            select.select([self.socket], [], [], 0.05)
        raise SystemExit(f"{what} did not come to {self.namespace}, but {[IP(it).summary() for it in self.inbox]}")


class Lab:
    """What the lab's daemon says."""

    def __init__(self, name, run_directory):
        self.name = name
        self.socket = os.path.join(run_directory, name, "control.sock")
        self.counted = self.discards()

    def ask(self, path):
        connection = http.client.HTTPConnection("lab")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def discards(self):
        return {it["code"]: it["packets"] for it in self.ask("/v1/counters")["discards"]}

    def newly_discarded(self):
        """Reasons, with packets, since this was last asked."""
        now, before = self.discards(), self.counted
        self.counted = now
        return {code: packets - before.get(code, 0) for code, packets in now.items() if packets > before.get(code, 0)}

    def leases(self, **inside):
        return [it for it in self.ask("/v1/nat") if inside.items() <= it["inside"].items()]


class Bench:
    """A lab, its ends, and what the cases found out, in order."""

    def __init__(self, lab, ends):
        self.lab, self.ends, self.found = lab, ends, {}

    def note(self, step, outcome):
        if step in self.found:
            raise SystemExit(f"two steps are called {step!r}")
        self.found[step] = outcome

    def fate(self, sender, packets, to=None, arriving=None, parts=1):
        """Sends, and says what becomes of it: `arrives`, or why it was discarded; and what its sender is answered.

        What arrives at the end `to` must be `arriving`, byte for byte. `parts`: how many packets that should be.
        """
        packets = packets if isinstance(packets, list) else [packets]
        self.lab.newly_discarded()
        for packet in packets:
            sender.send(packet)
        deadline = time.monotonic() + PATIENCE
        arrived, reasons = [], Counter()
        while time.monotonic() < deadline:
            while to is not None and (packet := to.take()) is not None:
                arrived.append(packet)
            if len(arrived) >= parts:
                return self.arrival(arrived, arriving)
            if not arrived:
                reasons.update(self.lab.newly_discarded())
            if reasons.total() >= len(packets):
                return self.discard(sender, reasons)
        raise SystemExit(f"neither arrived nor discarded: {packets}; {arrived} so far, {reasons}")

    def arrival(self, arrived, arriving):
        expected = arriving if isinstance(arriving, list) else [arriving]
        ids = {}
        differ = [
            (want, got)
            for want, got in zip(expected, arrived)
            if want is not None and bytes(own_id(want, got, ids)) != bytes(got)
        ]
        if not differ:
            return "arrives"
        return "; ".join(f"arrives as {describe(got)} instead of {describe(want)}" for want, got in differ)

    def discard(self, sender, reasons):
        self.settle(sender)
        # An answer may have been discarded, too.
        reasons.update(self.lab.newly_discarded())
        text = ", ".join(code if packets == 1 else f"{packets} {code}" for code, packets in sorted(reasons.items()))
        answers = []
        while (answer := sender.take(lambda packet: not is_marker(packet))) is not None:
            answers.append(describe(answer))
        return "; answered ".join([text, *answers])

    def settle(self, end):
        """Waits until what was on its way to `end` has come: something sent to it now arrives after it. Of several ports, some go
        through one queue and some through the other, each of which has a worker of its own."""
        for _ in range(2):
            self.mark(end, [MARKER + 1 + port for port in range(8)])

    def mark(self, end, ports):
        near, far, address, peer = self.markers[end]
        for port in ports:
            near.send(IP(src=address, dst=peer, id=1) / UDP(sport=port, dport=MARKER) / b"there")
        for _ in ports:
            there = far.wait("a marker", is_marker)
            far.send(IP(src=there.dst, dst=there.src, id=1) / UDP(sport=MARKER, dport=there.sport) / b"back")
        for _ in ports:
            near.wait("a marker's reply", is_marker)

    def strays(self):
        """What came to any end and was not asked about."""
        for end in self.ends:
            self.settle(end)
        strays = [describe(IP(data)) for end in self.ends for data in end.inbox if not is_marker(IP(data))]
        for end in self.ends:
            end.inbox.clear()
        return strays


def enter(descriptor):
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def is_marker(packet):
    return UDP in packet and packet.frag == 0 and MARKER in (packet[UDP].sport, packet[UDP].dport)


def sealed(packet):
    """A copy whose own checksums are computed anew; those of a quote stay."""
    copy = packet.copy()
    for layer in (copy, copy.payload):
        if "chksum" in layer.fields:
            del layer.chksum
    return IP(bytes(copy))


def describe(packet):
    """A packet in a few words, without ports that are chosen at random."""
    ends = f"{packet.src} > {packet.dst} ttl {packet.ttl}"
    if packet.frag or packet.flags.MF:
        return f"{ends} fragment at {packet.frag * 8}, {len(packet.payload)} bytes"
    if TCP in packet:
        return f"{ends} TCP {packet[TCP].flags} seq {packet[TCP].seq} ack {packet[TCP].ack}"
    if ICMP in packet:
        quoted = f" about {packet[ICMP].payload.src} > {packet[ICMP].payload.dst}" if packet[ICMP].type in (3, 11, 12) else ""
        return f"{ends} ICMP {packet[ICMP].type}/{packet[ICMP].code}{quoted}"
    return f"{ends} protocol {packet.proto}, {len(packet.payload)} bytes"


def own_id(want, got, ids):
    """What is expected, with the identification that a NAT gateway gave it: behind one, what may be fragmented gets a new one
    (RFC 7857, section 9), the same for all fragments of a datagram. `ids` remembers which."""
    got = IP(bytes(got))
    if want.src != NAT_ADDRESS or "DF" in want.flags:
        return want
    want = IP(bytes(want))
    want.id = ids.setdefault(want.id, got.id)
    del want.chksum
    return want
