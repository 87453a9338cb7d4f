#!/usr/bin/python3
"""Measures cliserd beside the floor and its peers, in one run and on the same work.

Prints the tables and writes them into docs/performance.md, between its two marks; --quick only
proves that everything works. Figures are medians over rounds, in which the servers take turns in
alternating order; ratios are taken within a round, since the machine's speed changes between them.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

import measure
import report
import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    arguments = parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    peers = [server for server in servers.PEERS if servers.is_installed(server)]
    missing = [server.name for server in servers.PEERS if server not in peers]
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}", file=sys.stderr)
    rig = measure.Rig(arguments.programs.resolve(), *processors())
    rounds = arguments.rounds or sizes["rounds"]

    results = {
        "machine": report.machine(),
        "versions": {peer.name: servers.version_of(peer) for peer in peers},
        "sizes": sizes | {"rounds": rounds},
        "beside": beside(rig, peers, sizes, rounds),
        "by_clients": by_clients(rig, sizes, rounds),
        "lateness": lateness(rig, sizes, rounds),
        "syscalls": syscalls(rig, peers, sizes),
        "scaling": scaling(rig, sizes),
    }
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = report.render(results)
    print(text)
    if not arguments.quick and not missing:
        report.write_into(ROOT / "docs" / "performance.md", text)


# clients: those that stay, beside which costs are compared; they are asked as often in all of them.
FULL = {
    "rounds": 9,
    "connections": 30_000,
    "held": 18_000,
    "interval_ms": 1000,
    "seconds": 4,
    "clients": (1000, 5000, 19_000),
    "asked_per_s": 10_000,
    "late_interval_ms": 2000,
    "late_connects_per_s": 5000,
    "late_seconds": 20,
    "scaling": (1000, 100_000, 1_000_000),
}
QUICK = {
    "rounds": 1,
    "connections": 300,
    "held": 100,
    "interval_ms": 100,
    "seconds": 0.5,
    "clients": (10, 50),
    "asked_per_s": 500,
    "late_interval_ms": 200,
    "late_connects_per_s": 100,
    "late_seconds": 1,
    "scaling": (100, 1000),
}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, and only printed")
    parser.add_argument("--rounds", type=int, help=f"({FULL['rounds']}; quick {QUICK['rounds']})")
    parser.add_argument(
        "--programs",
        type=pathlib.Path,
        default=ROOT / "build" / "release" / "bin",
        help="folder of cliserd and the bench programs (build/release/bin)",
    )
    arguments = parser.parse_args()
    for program in ("cliserd", "cliser-stress", "bench-floor", "bench-load", "bench-scaling"):
        if not (arguments.programs / program).exists():
            parser.error(f"{arguments.programs}/{program} is missing; scripts/bench builds it")
    return arguments


def processors():
    """One for the server, another for the load; the same if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def in_rounds(rounds, cases, run):
    """Runs each case once a round, in alternating order. Returns case -> figure -> list."""
    figures = {case: {} for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            for figure, value in run(case).items():
                figures[case].setdefault(figure, []).append(value)
        say(f"round {number + 1} of {rounds}")
    return figures


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def beside(rig, peers, sizes, rounds):
    say("connections and keep-alives, beside the floor and the peers")
    by_name = {
        server.name: server
        for server in (servers.FLOOR, servers.MEMORY, servers.SQLITE, servers.FULL, *peers)
    }

    def run(name):
        server = by_name[name]
        figures = measure.churn(server, rig, sizes["connections"])
        if server is not servers.FULL:
            figures |= measure.hold(
                server, rig, sizes["held"], sizes["interval_ms"], sizes["seconds"]
            )
        return figures

    return in_rounds(rounds, list(by_name), run)


def by_clients(rig, sizes, rounds):
    say("the same beside more and more clients")
    both = {server.name: server for server in (servers.FLOOR, servers.SQLITE)}

    def run(case):
        name, clients = case
        interval_ms = clients * 1000 // sizes["asked_per_s"]
        figures = measure.churn(both[name], rig, sizes["connections"] // 2, clients)
        return figures | measure.hold(both[name], rig, clients, interval_ms, sizes["seconds"])

    cases = [(name, clients) for clients in sizes["clients"] for name in both]
    figures = in_rounds(max(rounds // 3, 1), cases, run)
    return [{"server": case[0], "clients": case[1], "figures": figures[case]} for case in cases]


def lateness(rig, sizes, rounds):
    say("keep-alives during a storm of connections")
    by_name = {server.name: server for server in (servers.SQLITE, servers.FULL)}

    def run(name):
        return measure.lateness(
            by_name[name],
            rig,
            sizes["held"],
            sizes["late_interval_ms"],
            sizes["late_connects_per_s"],
            sizes["late_seconds"],
        )

    return in_rounds(max(rounds // 3, 1), list(by_name), run)


def syscalls(rig, peers, sizes):
    if not shutil.which("strace"):
        say("strace is not installed, so system calls are not counted")
        return {}
    say("system calls")
    return {
        server.name: measure.syscalls(
            server,
            rig,
            sizes["connections"] // 10,
            sizes["held"] // 10,
            sizes["interval_ms"],
            sizes["seconds"],
        )
        for server in (servers.FLOOR, servers.MEMORY, servers.SQLITE, *peers)
    }


def scaling(rig, sizes):
    say("costs beside up to a million clients, simulated")
    argv = [str(rig.programs / "bench-scaling"), *map(str, sizes["scaling"])]
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {rig.server_processor}),
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
