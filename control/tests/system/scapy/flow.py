"""A connection by hand: what is sent at one end, and how it must come out at the other."""

from scapy.layers.inet import IP, TCP, UDP

from bench import own_id, sealed


class Flow:
    """Between a port at the end `near` and one at the end `far`; `hops` that decrement the TTL lie between them.

    `near` may be behind something that translates: what it looks like from `far` is learnt from its first packet.
    """

    def __init__(self, bench, near, far, source, destination, hops, known_as=None):
        self.bench, self.near, self.far, self.hops = bench, near, far, hops
        self.inside, self.outside = source, destination
        self.outside_seen = self.inside_seen = known_as
        # What each end sends next: sequence number, and acknowledgement of the other's.
        self.mine, self.theirs = 1000, 5_000_000

    def out(self, flags, seq, ack=0, data=b"", ttl=64):
        ends = TCP(sport=self.inside[1], dport=self.outside[1], flags=flags, seq=seq, ack=ack, window=8000)
        return IP(src=self.inside[0], dst=self.outside[0], ttl=ttl, id=7) / ends / data

    def back(self, flags, seq, ack=0, data=b"", ttl=64):
        ends = TCP(sport=self.outside[1], dport=self.inside_seen[1], flags=flags, seq=seq, ack=ack, window=8000)
        return IP(src=self.outside[0], dst=self.inside_seen[0], ttl=ttl, id=8) / ends / data

    def datagram(self, data, ttl=64, **ip):
        return IP(src=self.inside[0], dst=self.outside[0], ttl=ttl, **ip) / self.ports(self.inside[1], self.outside[1]) / data

    def reply(self, data, ttl=64, **ip):
        return IP(src=self.outside[0], dst=self.inside_seen[0], ttl=ttl, **ip) / self.ports(self.outside[1], self.inside_seen[1]) / data

    @staticmethod
    def ports(source, destination):
        return UDP(sport=source, dport=destination)

    def learn(self, packet):
        """Sends the first packet and notes as what `far` sees it."""
        self.near.send(packet)
        transport = type(packet.payload)
        first = self.far.wait("the first packet", lambda it: transport in it and it[transport].dport == self.outside[1])
        self.inside_seen = (first.src, first[transport].sport)
        expected = own_id(self.translated(packet), first, {})
        return "arrives" if bytes(first) == bytes(expected) else f"arrives as {first.summary()}"

    def translated(self, packet):
        """What `near` sends, as `far` sees it."""
        copy = packet.copy()
        copy.ttl -= self.hops
        copy.src, copy.payload.sport = self.inside_seen
        return sealed(copy)

    def restored(self, packet):
        """What `far` sends, as `near` sees it."""
        copy = packet.copy()
        copy.ttl -= self.hops
        copy.dst, copy.payload.dport = self.inside
        return sealed(copy)

    def goes_out(self, packet):
        return self.bench.fate(self.near, packet, self.far, self.translated(packet))

    def comes_back(self, packet):
        return self.bench.fate(self.far, packet, self.near, self.restored(packet))

    def open(self):
        """The three packets that open a TCP connection."""
        outcomes = [
            self.learn(self.out("S", self.mine)),
            self.comes_back(self.back("SA", self.theirs, self.mine + 1)),
            self.goes_out(self.out("A", self.mine + 1, self.theirs + 1)),
        ]
        if outcomes != ["arrives"] * 3:
            raise SystemExit(f"a handshake: {outcomes}")
        self.mine, self.theirs = self.mine + 1, self.theirs + 1
        return self
