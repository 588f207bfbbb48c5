"""Fragments: in any order, of every protocol, and those that attack: NATGW-27, RFC 791, RFC 1858, RFC 3128, RFC 5722."""

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment

from bench import sealed
from flow import Flow

ONE = "198.51.100.10"
PAYLOAD = bytes(at * 7 % 251 for at in range(3000))


def cases(bench, app, web, internet):
    ids = iter(range(1, 65_000))

    def behind_nat(port):
        it = Flow(bench, app, internet, ("10.0.2.20", port), (ONE, 9000), hops=1)
        it.learn(it.datagram(b"first", id=next(ids)))
        return it

    udp_in_any_order(bench, behind_nat(42_001), ids)
    from_outside(bench, behind_nat(42_002), ids)
    other_protocols(bench, app, web, internet, ids)
    overlaps(bench, web, internet, ids)
    tiny(bench, web, internet, ids)
    impossible(bench, web, ids)


def pieces(packet, size=1200):
    return fragment(sealed(packet), fragsize=size)


def orders(parts):
    return {"in order": parts, "backwards": parts[::-1], "the first in the middle": [parts[1], parts[0], parts[2]]}


def leaving(parts):
    """What a receiver gets: those that came before the first leave behind it, in the order in which they came."""
    first = next(at for at, part in enumerate(parts) if part.frag == 0)
    return [parts[first], *parts[:first], *parts[first + 1 :]]


def udp_in_any_order(bench, it, ids):
    for name in orders([0, 1, 2]):
        whole = it.datagram(PAYLOAD, id=next(ids))
        parts = orders(pieces(whole))[name]
        # Cutting what the gateway makes of the whole gives the same as what it makes of the pieces, checksum included.
        expected = leaving(orders(pieces(it.translated(whole)))[name])
        bench.note(f"UDP out, {name}", bench.fate(it.near, parts, it.far, expected, parts=3))
    whole = it.datagram(PAYLOAD, id=next(ids))
    parts, expected = pieces(whole), pieces(it.translated(whole))
    twice = [parts[0], parts[1], parts[1], parts[2]]
    bench.note("UDP out, a fragment twice", bench.fate(it.near, twice, it.far, [expected[0], expected[1], expected[1], expected[2]], parts=4))
    parts, expected = pieces(whole, 8), pieces(it.translated(whole), 8)[:64]
    bench.note("UDP out, 8 bytes each", bench.fate(it.near, parts[:64], it.far, expected, parts=64))


def from_outside(bench, it, ids):
    for name in orders([0, 1, 2]):
        whole = it.reply(PAYLOAD, id=next(ids))
        expected = leaving(orders(pieces(it.restored(whole)))[name])
        bench.note(f"UDP in, {name}", bench.fate(it.far, orders(pieces(whole))[name], it.near, expected, parts=3))
    unasked = IP(src="198.51.100.11", dst=it.inside_seen[0], id=next(ids)) / UDP(sport=9000, dport=it.inside_seen[1]) / PAYLOAD
    bench.note("UDP in, unasked", bench.fate(it.far, pieces(unasked), None))


def other_protocols(bench, app, web, internet, ids):
    def segment(source):
        return IP(src=source, dst=ONE, id=next(ids)) / TCP(sport=42_100, dport=9000, flags="S", seq=1) / PAYLOAD

    def ping(source):
        return IP(src=source, dst=ONE, id=next(ids)) / ICMP(id=77) / PAYLOAD

    for name, make in (("TCP", segment), ("ping", ping)):
        # The first alone: what the others then count is the same.
        bench.note(f"{name} through the NAT gateway", bench.fate(app, pieces(make("10.0.2.20"))[0], internet))
        whole = make("10.0.1.10")
        seen = whole.copy()
        seen.src = "203.0.113.10"
        bench.note(f"{name} through the internet gateway", bench.fate(web, pieces(whole), internet, pieces(sealed(seen)), parts=3))


def public(packet):
    """What web sends, as the internet sees it."""
    copy = packet.copy()
    copy.src = "203.0.113.10"
    copy.chksum = None
    return copy


def piece(identification, at, data, more, proto=17):
    return IP(src="10.0.1.10", dst=ONE, id=identification, proto=proto, frag=at // 8, flags="MF" if more else 0) / data


def overlaps(bench, web, internet, ids):
    head = bytes(UDP(sport=42_200, dport=9000, len=8 + 56, chksum=0)) + b"a" * 24

    def first(identification, data=head, more=True):
        packet = piece(identification, 0, data, more)
        return bench.fate(web, packet, internet, public(packet))

    def then(identification, at, data, more):
        return bench.fate(web, piece(identification, at, data, more), internet)

    for name, at, length, more in (
        ("one that overlaps the first by 8 bytes", 24, 40, False),
        ("teardrop: one inside the first", 8, 8, False),
        ("one that covers the first", 0, 40, True),
    ):
        n = next(ids)
        bench.note(f"before {name}", first(n))
        bench.note(name, then(n, at, b"b" * length, more))
        bench.note(f"the rest after {name}", then(n, 32, b"c" * 32, False))
    n = next(ids)
    bench.note("before an end that contradicts", first(n))
    packet = piece(n, 48, b"c" * 16, False)
    bench.note("the end", bench.fate(web, packet, internet, public(packet)))
    bench.note("one beyond the end", then(n, 64, b"d" * 8, False))


def tiny(bench, web, internet, ids):
    header = bytes(TCP(sport=42_300, dport=9000, flags="S", seq=1))
    n = next(ids)
    bench.note("TCP, 8 bytes first", bench.fate(web, piece(n, 0, header[:8], True, proto=6), internet))
    bench.note("TCP, 16 bytes first", bench.fate(web, piece(next(ids), 0, header[:16], True, proto=6), internet))
    bench.note("TCP at offset 8", bench.fate(web, piece(next(ids), 8, header[8:], False, proto=6), internet))
    bench.note("TCP at offset 16", bench.fate(web, piece(next(ids), 16, header[16:] + b"d" * 8, False, proto=6), internet))


def impossible(bench, web, ids):
    bench.note("ping of death", bench.fate(web, piece(next(ids), 65_528, b"e" * 100, False, proto=1)))
    bench.note("no multiple of 8, and more follow", bench.fate(web, piece(next(ids), 0, b"e" * 29, True)))
    bench.note("without data", bench.fate(web, piece(next(ids), 800, b"", True)))
    error = IP(src="10.0.1.10", dst=ONE, id=next(ids)) / ICMP(type=3, code=1) / bytes(IP(src=ONE, dst="10.0.1.10") / UDP() / PAYLOAD)
    bench.note("an ICMP error in fragments", bench.fate(web, pieces(error)[0]))
