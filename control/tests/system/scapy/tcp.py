"""TCP segments that do not fit: RFC 5961, RFC 7857, NATGW-18, NATGW-22."""

from scapy.layers.inet import IP, TCP

from flow import Flow

ONE, TWO = "198.51.100.10", "198.51.100.11"


def cases(bench, app, web, internet):
    ports = iter(range(40_001, 41_000))

    def flow():
        return Flow(bench, app, internet, ("10.0.2.20", next(ports)), (ONE, 80), hops=1)

    def state(of):
        leases = bench.lab.leases(source_port=of.inside[1], protocol=6)
        return " and ".join(it["state"] for it in leases) or "no lease"

    resets(bench, flow().open(), state)
    resets_from_inside(bench, flow().open(), state)
    syn_on_established(bench, flow().open(), state)
    old_data(bench, flow().open(), state)
    old_syn_ack(bench, flow(), state)
    syn_with_data(bench, flow(), state)
    simultaneous_open(bench, flow(), state)
    refused(bench, flow(), state)
    reuse(bench, flow().open(), state)
    out_of_the_blue(bench, flow())
    from_outside(bench, flow().open())
    flags(bench, flow())


def resets(bench, it, state):
    def reset(seq):
        return f"{it.comes_back(it.back('R', seq))}, {state(it)}"

    bench.note("RST before the window", reset(it.theirs - 1))
    bench.note("RST in the window, not next", reset(it.theirs + 100))
    bench.note("RST beyond the window", reset(it.theirs + 100_000))
    bench.note("the challenge ACK", it.goes_out(it.out("A", it.mine, it.theirs)))
    bench.note("data after them", it.comes_back(it.back("PA", it.theirs, it.mine, b"still here")))
    it.theirs += len(b"still here")
    bench.note("RST that is next", reset(it.theirs))
    bench.note("data after that", f"{it.comes_back(it.back('PA', it.theirs, it.mine, b'too late'))}, {state(it)}")


def resets_from_inside(bench, it, state):
    bench.note("RST from inside, not next", f"{it.goes_out(it.out('R', it.mine + 50))}, {state(it)}")
    bench.note("RST from inside", f"{it.goes_out(it.out('R', it.mine))}, {state(it)}")


def syn_on_established(bench, it, state):
    bench.note("SYN on an established connection", f"{it.goes_out(it.out('S', it.mine + 90_000))}, {state(it)}")
    bench.note("its challenge ACK", f"{it.comes_back(it.back('A', it.theirs, it.mine))}, {state(it)}")
    bench.note("the RST that follows", f"{it.goes_out(it.out('R', it.mine))}, {state(it)}")
    bench.note("the SYN once more", f"{it.learn(it.out('S', it.mine + 90_000))}, {state(it)}")


def old_data(bench, it, state):
    for step in ("data", "the same data"):
        bench.note(step, it.goes_out(it.out("PA", it.mine, it.theirs, b"x" * 100)))
        bench.note(f"the acknowledgement of {step}", it.comes_back(it.back("A", it.theirs, it.mine + 100)))
    bench.note("data far beyond the window", f"{it.goes_out(it.out('PA', it.mine + 9_000_000, it.theirs, b'x'))}, {state(it)}")


def old_syn_ack(bench, it, state):
    bench.note("SYN", f"{it.learn(it.out('S', it.mine))}, {state(it)}")
    bench.note("an old SYN-ACK", f"{it.comes_back(it.back('SA', it.theirs - 77, it.mine - 300))}, {state(it)}")
    bench.note("the RST about it", f"{it.goes_out(it.out('R', it.mine - 300))}, {state(it)}")
    bench.note("the right SYN-ACK", f"{it.comes_back(it.back('SA', it.theirs, it.mine + 1))}, {state(it)}")
    bench.note("the ACK", f"{it.goes_out(it.out('A', it.mine + 1, it.theirs + 1))}, {state(it)}")


def syn_with_data(bench, it, state):
    bench.note("SYN with data", f"{it.learn(it.out('S', it.mine, data=b'early'))}, {state(it)}")
    bench.note("its SYN-ACK", f"{it.comes_back(it.back('SA', it.theirs, it.mine + 6))}, {state(it)}")
    bench.note("its ACK", f"{it.goes_out(it.out('A', it.mine + 6, it.theirs + 1))}, {state(it)}")


def simultaneous_open(bench, it, state):
    bench.note("SYN out", f"{it.learn(it.out('S', it.mine))}, {state(it)}")
    bench.note("SYN in", f"{it.comes_back(it.back('S', it.theirs))}, {state(it)}")
    bench.note("SYN-ACK out", f"{it.goes_out(it.out('SA', it.mine, it.theirs + 1))}, {state(it)}")
    bench.note("SYN-ACK in", f"{it.comes_back(it.back('SA', it.theirs, it.mine + 1))}, {state(it)}")


def refused(bench, it, state):
    bench.note("SYN to a closed port", it.learn(it.out("S", it.mine)))
    bench.note("RST that acknowledges something else", f"{it.comes_back(it.back('RA', 0, it.mine + 9))}, {state(it)}")
    bench.note("RST that acknowledges the SYN", f"{it.comes_back(it.back('RA', 0, it.mine + 1))}, {state(it)}")


def reuse(bench, it, state):
    bench.note("FIN", f"{it.goes_out(it.out('FA', it.mine, it.theirs))}, {state(it)}")
    bench.note("FIN of the other", f"{it.comes_back(it.back('FA', it.theirs, it.mine + 1))}, {state(it)}")
    bench.note("the last ACK", f"{it.goes_out(it.out('A', it.mine + 1, it.theirs + 1))}, {state(it)}")
    bench.note("SYN from outside on the closed connection", it.comes_back(it.back("S", it.theirs + 9_000)))
    closed = it.inside_seen
    bench.note("SYN from inside on the closed connection", f"{it.learn(it.out('S', it.mine + 90_000))}, {state(it)}")
    bench.note("its port", "another one" if it.inside_seen != closed else "the same")
    bench.note("the reply to it", it.comes_back(it.back("SA", it.theirs + 70_000, it.mine + 90_001)))


def out_of_the_blue(bench, it):
    """Segments of a connection that the gateway does not know: as after its idle timeout."""
    for kind in ("A", "PA", "FA", "SA", "RA", "R"):
        bench.note(f"{kind} out of the blue", bench.fate(it.near, it.out(kind, 77, 88, b"data" if kind == "PA" else b"")))


def from_outside(bench, it):
    """What comes to a port that is leased, but not from the far end that it is leased for."""
    address, port = it.inside_seen

    def stranger(source, sport, flags):
        segment = TCP(sport=sport, dport=port, flags=flags, seq=it.theirs, ack=it.mine)
        return bench.fate(it.far, IP(src=source, dst=address) / segment)

    bench.note("SYN from another host", stranger(TWO, 80, "S"))
    bench.note("ACK from another host", stranger(TWO, 80, "A"))
    bench.note("RST from another host", stranger(TWO, 80, "R"))
    bench.note("ACK from another port", stranger(ONE, 81, "A"))
    bench.note("the connection goes on", it.comes_back(it.back("PA", it.theirs, it.mine, b"hello")))


def flags(bench, it):
    """Combinations that no TCP sends."""
    for name, kind in (("no flags", ""), ("Xmas", "FPU"), ("SYN and FIN", "SF"), ("SYN and RST", "SR"), ("all flags", "FSRPAU")):
        bench.note(name, bench.fate(it.near, it.out(kind, 10, 20), it.far))
        it.inside = (it.inside[0], it.inside[1] + 100)
