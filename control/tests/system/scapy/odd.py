"""Packets that are wrong, or merely rare: RFC 1812 §5.2, RFC 6274, NATGW-9, SG-30, VPC-30."""

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_RR, IPOption_Timestamp

from bench import sealed

ONE = "198.51.100.10"
WEB, APP, EIP = "10.0.1.10", "10.0.2.20", "203.0.113.10"


def cases(bench, app, web, internet):
    headers(bench, web, internet)
    options(bench, web)
    checksums(bench, web, internet)
    transport(bench, web)
    spoofed(bench, app, web, internet)
    protocols(bench, app, web, internet)
    other_icmp(bench, app, web, internet)


def datagram(**ip):
    return IP(**{"src": WEB, "dst": ONE, "id": 3, **ip}) / UDP(sport=44_001, dport=9000) / b"odd, that"


def headers(bench, web, internet):
    def fate(packet):
        return bench.fate(web, packet)

    good = bytes(sealed(datagram()))
    bench.note("a wrong header checksum", fate(sealed(datagram()).__class__(good[:10] + bytes([good[10] ^ 1]) + good[11:])))
    bench.note("IP version 6 over IPv4", fate(bytes([0x65]) + good[1:]))
    bench.note("IP version 0", fate(bytes([0x05]) + good[1:]))
    bench.note("a header of 16 bytes", fate(bytes([0x44]) + good[1:]))
    bench.note("a header longer than the packet", fate(bytes([0x4F]) + good[1:30]))
    bench.note("a total length below the header's", fate(datagram(len=19)))
    bench.note("a total length beyond the packet", fate(datagram(len=1000)))
    bench.note("half a header", fate(good[:10]))
    seen = datagram(src=EIP)
    padded = bench.fate(web, good + b"padding", internet, sealed(seen))
    bench.note("padding behind the packet", padded)
    bench.note("TTL 0", bench.fate(web, datagram(ttl=0), internet, sealed(datagram(src=EIP, ttl=0))))
    bench.note("the reserved flag", bench.fate(web, datagram(flags="evil"), internet, sealed(datagram(src=EIP, flags="evil"))))


def options(bench, web):
    for name, option in (
        ("record route", IPOption_RR()),
        ("loose source route", IPOption_LSRR(routers=["10.0.2.20"])),
        ("timestamp", IPOption_Timestamp()),
    ):
        bench.note(f"option: {name}", bench.fate(web, datagram(options=[option])))


def checksums(bench, web, internet):
    """What is wrong stays wrong by as much: nothing is repaired."""
    for name, make in (
        ("UDP", lambda source: IP(src=source, dst=ONE, id=4) / UDP(sport=44_002, dport=9000) / b"data"),
        ("TCP", lambda source: IP(src=source, dst=ONE, id=4) / TCP(sport=44_003, dport=9000, flags="S", seq=1)),
    ):
        sent, seen = sealed(make(WEB)), sealed(make(EIP))
        for packet in (sent, seen):
            # Adding to a sum in ones' complement is the same before and after.
            sum_ = packet.payload.chksum + 0x0101
            packet.payload.chksum = (sum_ & 0xFFFF) + (sum_ >> 16)
        bench.note(f"a wrong {name} checksum", bench.fate(web, sent, internet, seen))
    without = IP(src=WEB, dst=ONE, id=5) / UDP(sport=44_004, dport=9000, chksum=0) / b"data"
    seen = without.copy()
    seen.src = EIP
    bench.note("UDP without a checksum", bench.fate(web, without, internet, seen))


def transport(bench, web):
    def fate(protocol, data):
        return bench.fate(web, IP(src=WEB, dst=ONE, proto=protocol, id=6) / data)

    bench.note("half a TCP header", fate(6, b"\x01" * 12))
    bench.note("a TCP header of 16 bytes", fate(6, bytes(TCP(dataofs=4))))
    bench.note("a TCP header beyond the segment", fate(6, bytes(TCP(dataofs=15))))
    bench.note("half a UDP header", fate(17, b"\x01" * 4))
    bench.note("a UDP length below the header's", fate(17, bytes(UDP(len=7))))
    bench.note("a UDP length beyond the datagram", fate(17, bytes(UDP(len=100))))
    bench.note("half an ICMP header", fate(1, b"\x08\x00"))


def spoofed(bench, app, web, internet):
    def syn(source, destination, port=80):
        return IP(src=source, dst=destination) / TCP(sport=port, dport=port, flags="S")

    bench.note("land: app to itself", bench.fate(app, syn(APP, APP)))
    # Its private address is not on the packet twice: for web it comes from elsewhere.
    bench.note("land: from outside, as web to web", bench.fate(internet, syn(EIP, EIP), web, sealed(syn(EIP, WEB))))
    bench.note("land: from outside, as the NAT gateway to itself", bench.fate(internet, syn("203.0.113.20", "203.0.113.20")))
    bench.note("as a neighbour", bench.fate(app, syn("10.0.2.21", WEB)))
    bench.note("as the router", bench.fate(app, syn("10.0.2.1", WEB)))
    bench.note("as web's Elastic IP, from web", bench.fate(web, syn(EIP, ONE)))
    for name, source in (("loopback", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("broadcast", "255.255.255.255"), ("multicast", "224.0.0.1")):
        bench.note(f"from outside, as {name}", bench.fate(internet, syn(source, EIP)))
    for name, destination in (("loopback", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("broadcast", "255.255.255.255"), ("the subnet's broadcast", "10.0.1.255")):
        bench.note(f"to {name}", bench.fate(web, syn(WEB, destination)))


def protocols(bench, app, web, internet):
    """Protocols that nobody here looks into: addresses are translated, and nothing else."""

    def packet(source, destination, protocol, data=b"\x00\x01payload"):
        return IP(src=source, dst=destination, proto=protocol, id=7) / data

    for name, protocol in (("GRE", 47), ("ESP", 50), ("SCTP", 132), ("protocol 253", 253)):
        bench.note(f"{name} through the NAT gateway", bench.fate(app, packet(APP, ONE, protocol)))
        bench.note(f"{name} to the NAT gateway", bench.fate(internet, packet(ONE, "203.0.113.20", protocol)))
        out = bench.fate(web, packet(WEB, ONE, protocol), internet, sealed(packet(EIP, ONE, protocol)))
        bench.note(f"{name} through the internet gateway", out)
        back = bench.fate(internet, packet(ONE, EIP, protocol), web, sealed(packet(ONE, WEB, protocol)))
        bench.note(f"{name} in reply", back)
    bench.note("ESP that nobody asked for", bench.fate(internet, packet("198.51.100.11", EIP, 50)))
    bench.note("an empty packet", bench.fate(web, packet(WEB, ONE, 253, b""), internet, sealed(packet(EIP, ONE, 253, b""))))


def other_icmp(bench, app, web, internet):
    def message(source, kind, **fields):
        return IP(src=source, dst=ONE, id=8) / ICMP(type=kind, **fields)

    for name, kind in (("timestamp", 13), ("information", 15), ("address mask", 17), ("router solicitation", 10)):
        bench.note(f"ICMP {name} through the NAT gateway", bench.fate(app, message(APP, kind)))
    bench.note("an echo reply that answers nothing", bench.fate(app, message(APP, 0, id=5)))
    bench.note("the same from outside", bench.fate(internet, IP(src=ONE, dst="203.0.113.20") / ICMP(type=0, id=5)))
    bench.note("ICMP timestamp through the internet gateway", bench.fate(web, message(WEB, 13), internet, sealed(message(EIP, 13))))
