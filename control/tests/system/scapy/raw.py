"""Packets that no system sends by itself, from raw sockets in the namespaces of a lab: `raw.py CASES LAB RUN_DIRECTORY`.

Prints what became of each step, in order, as JSON. `raw.rs` says what should have.
"""

import json
import sys

import fragments
import icmp
import odd
import tcp
from bench import Bench, End, Lab

CASES = {"tcp": tcp.cases, "fragments": fragments.cases, "icmp": icmp.cases, "odd": odd.cases}


def main():
    cases, name, run_directory = sys.argv[1:]
    ends = {who: End(f"{name}-{who}", "inet0" if who == "internet" else "eth0") for who in ("app", "web", "internet")}
    for end in ends.values():
        end.mute()
    bench = Bench(Lab(name, run_directory), list(ends.values()))
    bench.markers = {
        ends["app"]: (ends["app"], ends["internet"], "10.0.2.20", "198.51.100.10"),
        ends["web"]: (ends["web"], ends["internet"], "10.0.1.10", "198.51.100.10"),
        ends["internet"]: (ends["internet"], ends["web"], "198.51.100.10", "203.0.113.10"),
    }
    CASES[cases](bench, **ends)
    bench.note("nobody else got anything", ", ".join(bench.strays()) or "nobody")
    json.dump(list(bench.found.items()), sys.stdout)


main()
