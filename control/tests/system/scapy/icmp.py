"""ICMP errors: about connections and about nothing, both ways, and those that the lab sends: RFC 5508, RFC 1812, NATGW-20."""

import time
from collections import Counter

from scapy.layers.inet import ICMP, IP, TCP, UDP

from bench import PATIENCE, sealed
from flow import Flow

ONE, TWO = "198.51.100.10", "198.51.100.11"
# A router on the way, which is no host of the lab's internet.
ROUTER = "192.0.2.1"


def cases(bench, app, web, internet):
    tcp = Flow(bench, app, internet, ("10.0.2.20", 43_001), (ONE, 80), hops=1).open()
    udp = Flow(bench, app, internet, ("10.0.2.20", 43_002), (ONE, 9000), hops=1)
    bench.note("a datagram", udp.learn(udp.datagram(b"question", id=2)))
    for name, it in (("TCP", tcp), ("UDP", udp)):
        about_what_was_sent(bench, name, it)
    about_what_came(bench, udp)
    about_a_ping(bench, app, internet)
    forged(bench, tcp)
    damaged(bench, udp)
    through_the_internet_gateway(bench, web, internet)
    end_of_ttl(bench, udp)


def packet_of(it):
    if it.outside[1] == 80:
        return it.out("A", it.mine, it.theirs, b"x" * 40)
    return it.datagram(b"question", id=3)


def error(source, destination, about, kind=3, code=4, mtu=1400):
    mtu = {"nexthopmtu": mtu} if (kind, code) == (3, 4) else {}
    return IP(src=source, dst=destination, id=9) / ICMP(type=kind, code=code, **mtu) / bytes(about)


def about_what_was_sent(bench, name, it):
    """From a router on the way: translated back to what app has sent."""
    sent = packet_of(it)
    outside, inside = it.translated(sent), sent.copy()
    inside.ttl = outside.ttl
    for what, kind, code in (("fragmentation needed", 3, 4), ("time exceeded", 11, 0), ("port unreachable", 3, 3), ("source quench", 4, 0)):
        expected = error(ROUTER, it.inside[0], sealed(inside), kind, code)
        expected.ttl -= it.hops
        packet = error(ROUTER, it.inside_seen[0], outside, kind, code)
        bench.note(f"{what} about {name}", bench.fate(it.far, packet, it.near, sealed(expected)))
    short = error(ROUTER, it.inside_seen[0], bytes(outside)[:28], 11, 0)
    arrived = bench.fate(it.far, short, it.near)
    bench.note(f"time exceeded that quotes 8 bytes of {name}", arrived)


def about_what_came(bench, it):
    """From app, about a datagram that came in: leaves with the public address, and quotes it."""
    reply = it.reply(b"answer", id=4)
    bench.note("a reply", it.comes_back(reply))
    inside = it.restored(reply)
    packet = error(it.inside[0], ONE, inside, 3, 3)
    quoted = reply.copy()
    quoted.ttl = inside.ttl
    expected = error(it.inside_seen[0], ONE, sealed(quoted), 3, 3)
    expected.ttl -= it.hops
    bench.note("port unreachable about the reply", bench.fate(it.near, packet, it.far, sealed(expected)))


def about_a_ping(bench, app, internet):
    ping = IP(src="10.0.2.20", dst=ONE, id=5) / ICMP(id=4321, seq=1) / b"ping"
    app.send(ping)
    seen = internet.wait("the ping", lambda it: ICMP in it and it[ICMP].type == 8)
    packet = error(ROUTER, seen.src, seen, 3, 1)
    inside = ping.copy()
    # What the NAT gateway wrote over the identification, it does not know how to undo.
    inside.ttl, inside.id = seen.ttl, seen.id
    expected = error(ROUTER, "10.0.2.20", sealed(inside), 3, 1)
    expected.ttl -= 1
    bench.note("host unreachable about a ping", bench.fate(internet, packet, app, sealed(expected)))


def forged(bench, it):
    """Errors that quote what nobody has sent."""

    def quoting(change):
        quote = it.translated(packet_of(it))
        change(quote)
        return bench.fate(it.far, error(ROUTER, it.inside_seen[0], sealed(quote)))

    def port(quote):
        quote[TCP].sport ^= 1

    def far_port(quote):
        quote[TCP].dport = 81

    def far_host(quote):
        quote.dst = TWO

    def source(quote):
        quote.src = "203.0.113.99"

    for name, change in (("port", port), ("far port", far_port), ("far host", far_host)):
        bench.note(f"forged: another {name}", quoting(change))
    bench.note("forged: the quote is of somebody else", quoting(source))
    datagram = IP(src=it.inside_seen[0], dst=ONE) / UDP(sport=it.inside_seen[1], dport=80) / b"x"
    bench.note("forged: another protocol", bench.fate(it.far, error(ROUTER, it.inside_seen[0], datagram)))
    about_error = error(it.inside_seen[0], ONE, it.translated(packet_of(it)), 3, 3)
    bench.note("forged: an error about an error", bench.fate(it.far, error(ROUTER, it.inside_seen[0], about_error)))
    inside = error(it.inside[0], ONE, IP(src=ONE, dst=it.inside[0]) / UDP(sport=9000, dport=5), 3, 3)
    bench.note("forged: from inside, about nothing", bench.fate(it.near, inside))
    bench.note("the connection goes on", it.goes_out(packet_of(it)))


def damaged(bench, it):
    quote = bytes(it.translated(packet_of(it)))
    good = sealed(error(ROUTER, it.inside_seen[0], quote, 3, 3))

    def with_bytes(packet):
        return bench.fate(it.far, packet)

    wrong = good.copy()
    wrong[ICMP].chksum ^= 0x1111
    bench.note("a wrong ICMP checksum", with_bytes(wrong))
    bent = bytearray(quote)
    bent[10] ^= 0xFF
    bench.note("a wrong checksum in the quoted header", with_bytes(error(ROUTER, it.inside_seen[0], bytes(bent), 3, 3)))
    bench.note("a quote of 4 bytes behind the header", with_bytes(error(ROUTER, it.inside_seen[0], quote[:24], 3, 3)))
    bench.note("half a header quoted", with_bytes(error(ROUTER, it.inside_seen[0], quote[:12], 3, 3)))
    bench.note("nothing quoted", with_bytes(error(ROUTER, it.inside_seen[0], b"", 3, 3)))


def through_the_internet_gateway(bench, web, internet):
    """web's groups leave UDP untracked, so an error needs a rule of its own: web has none for ICMP (SG-41)."""
    it = Flow(bench, web, internet, ("10.0.1.10", 43_003), (ONE, 9000), hops=0)
    it.learn(it.datagram(b"question", id=6))
    outside = it.translated(it.datagram(b"question", id=6))
    bench.note("about an untracked datagram", bench.fate(it.far, error(ROUTER, it.inside_seen[0], outside, 3, 3)))
    # Outward there is a rule for everything.
    reply = it.reply(b"answer", id=7)
    bench.note("a reply to web", it.comes_back(reply))
    packet = error("10.0.1.10", ONE, it.restored(reply), 3, 3)
    expected = sealed(error("203.0.113.10", ONE, reply, 3, 3))
    bench.note("web's error about it", bench.fate(web, packet, internet, expected))


def end_of_ttl(bench, it):
    bench.note("TTL 1 out", bench.fate(it.near, it.datagram(b"question", ttl=1, id=8)))
    bench.note("TTL 1 in", bench.fate(it.far, it.reply(b"answer", ttl=1, id=9)))
    stranger = IP(src=TWO, dst=it.inside_seen[0], ttl=1, id=10) / UDP(sport=1, dport=2)
    bench.note("TTL 1, to the gateway itself", bench.fate(it.far, stranger))
    about = error(ROUTER, it.inside_seen[0], it.translated(it.datagram(b"question", id=3)), 3, 3)
    about.ttl = 1
    bench.note("TTL 1, an error", bench.fate(it.far, about))
    flood(bench, it, 600)


def flood(bench, it, packets):
    """More packets without TTL than a worker answers at once."""
    before = Counter(bench.lab.discards())
    packet = it.datagram(b"question", ttl=1, id=8)
    for _ in range(packets):
        it.near.send(packet)
    answers, limited, deadline = 0, 0, time.monotonic() + PATIENCE
    while answers + limited < packets and time.monotonic() < deadline:
        while it.near.take(lambda it: ICMP in it and it[ICMP].type == 11) is not None:
            answers += 1
        limited = (Counter(bench.lab.discards()) - before)["ICMP_ERROR_RATE_LIMITED"]
    bench.note("a flood", f"{answers} answered, {limited} not")
