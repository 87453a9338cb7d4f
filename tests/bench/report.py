"""The figures as the tables of docs/performance.md."""

import os
import pathlib
import platform
import statistics

import servers

BEGIN = "<!-- figures: written by scripts/bench, up to the next mark -->"
END = "<!-- end of the figures -->"

median = statistics.median


def render(results):
    parts = [
        budgets(results),
        beside(results),
        by_clients(results),
        lateness(results),
        syscalls(results),
        scaling(results),
        conditions(results),
    ]
    return "\n\n".join(part for part in parts if part)


def write_into(path, text):
    old = path.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio(figures, figure, name, base):
    """The median of the ratios within each round."""
    return median(a / b for a, b in zip(figures[name][figure], figures[base][figure]))


def spread(values, digits=1):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def budgets(results):
    figures = results["beside"]
    floor, memory, sqlite, redis = (
        server.name for server in (servers.FLOOR, servers.MEMORY, servers.SQLITE, servers.REDIS)
    )
    storm = results["lateness"][sqlite]
    rows = []

    def row(what, budget, value, met):
        rows.append([what, budget, value, "yes" if met else "**no**"])

    def at_most(what, figure, name, base, limit):
        if base in figures:
            value = ratio(figures, figure, name, base)
            row(what, f"≤ {limit:.2f} × {base}", f"{value:.2f}", value <= limit)

    connect = "processor time for a connection, handshake and close"
    at_most(f"{connect}, store memory", "connect_us", memory, floor, 1.10)
    at_most(f"{connect}, store sqlite", "connect_us", sqlite, floor, 1.25)
    at_most("the same", "connect_us", sqlite, redis, 1.00)
    at_most("processor time for a keep-alive", "keepalive_us", sqlite, floor, 1.20)
    at_most("the same", "keepalive_us", sqlite, redis, 0.85)
    size = median(figures[sqlite]["bytes_per_client"])
    row("memory for a connected client", "≤ 1434 B", f"{size:.0f} B", size <= 1434)
    late = median(storm["late_p99_ms"])
    row("lateness of keep-alives in a storm, p99", "≤ 50 ms", f"{late:.1f} ms", late <= 50)
    few, many = results["scaling"][0], results["scaling"][-1]
    value = many["idle_tick_ns"] / few["idle_tick_ns"]
    row(
        f"a tick with {many['clients']:,} clients and none due",
        f"that with {few['clients']:,}",
        f"{value:.2f} × that ({many['idle_tick_ns']:.1f} ns)",
        value <= 1.10,
    )
    return "### Budgets\n\n" + table(["what", "budget", "measured", "met"], rows)


def beside(results):
    figures = results["beside"]
    floor = servers.FLOOR.name
    notes = {server.name: server.note for server in servers.ALL}
    rows = []
    for name, values in figures.items():
        row = [
            name + (f" ({notes[name]})" if notes[name] else ""),
            spread(values["connect_us"]),
            f"{ratio(figures, 'connect_us', name, floor):.2f}",
        ]
        if "keepalive_us" in values:
            row += [
                spread(values["keepalive_us"]),
                f"{ratio(figures, 'keepalive_us', name, floor):.2f}",
                f"{median(values['bytes_per_client']):,.0f}",
            ]
        else:
            row += ["", "", ""]
        rows.append(row)
    head = ["server", "connection, µs", "× floor", "keep-alive, µs", "× floor", "bytes a client"]
    return "### Beside the floor and the peers\n\n" + table(head, rows)


def by_clients(results):
    cases = results["by_clients"]
    rows = []
    for case in cases:
        figures = case["figures"]
        floor = next(
            other["figures"]
            for other in cases
            if other["clients"] == case["clients"] and other["server"] == servers.FLOOR.name
        )
        both = {"this": figures, "floor": floor}
        rows.append(
            [
                f"{case['clients']:,}",
                case["server"],
                spread(figures["connect_us"]),
                f"{ratio(both, 'connect_us', 'this', 'floor'):.2f}",
                spread(figures["keepalive_us"]),
                f"{ratio(both, 'keepalive_us', 'this', 'floor'):.2f}",
            ]
        )
    head = ["clients", "server", "connection, µs", "× floor", "keep-alive, µs", "× floor"]
    return "### Beside more clients\n\n" + table(head, rows)


def lateness(results):
    rows = [
        [
            name,
            spread(values["late_p50_ms"]),
            spread(values["late_p99_ms"]),
            spread(values["late_max_ms"]),
            f"{100 * median(values['server_share']):.0f} %",
        ]
        for name, values in results["lateness"].items()
    ]
    head = ["server", "p50, ms", "p99, ms", "max, ms", "of a processor"]
    return "### Lateness of keep-alives in a storm\n\n" + table(head, rows)


def syscalls(results):
    parts = []
    for phase, title in (("connect", "a connection"), ("keepalive", "a keep-alive")):
        by_server = {name: counts[phase] for name, counts in results["syscalls"].items()}
        if not by_server:
            return ""
        names = sorted(
            {name for counts in by_server.values() for name in counts},
            key=lambda name: -max(counts.get(name, 0) for counts in by_server.values()),
        )
        rows = [
            [name, *(f"{counts.get(name, 0):.2f}" for counts in by_server.values())]
            for name in names
            if max(counts.get(name, 0) for counts in by_server.values()) >= 0.05
        ]
        parts.append(f"### System calls for {title}\n\n" + table(["call", *by_server], rows))
    return "\n\n".join(parts)


# Figure, what it is, and how many digits behind the point it has.
SCALING = (
    ("idle_tick_ns", "a tick, nobody due, ns", 1),
    ("next_us_ns", "finding when the next is due, ns", 1),
    ("keepalive_ns", "a keep-alive, asked and answered, without the kernel, ns", 0),
    ("visit_ns", "a session from start to end, without the kernel, ns", 0),
    ("find_ns", "a record by its ID, ns", 0),
    ("add_longest_ms", "the longest time that adding one record took, ms", 2),
    ("order_total_ms", "putting all records in order for the first list, ms", 1),
    ("order_step_longest_us", "… and the longest step of 512, µs", 0),
    ("page_100_us", "a page of 100, µs", 1),
    ("page_1000_us", "a page of 1000, µs", 1),
    ("page_1000_longest_us", "… and the longest, µs", 0),
    ("list_matching_ms", "all pages, with a pattern that matches nobody, ms", 1),
    ("list_matching_page_longest_us", "… and the longest page, µs", 0),
    ("walk_ms", "everybody listed over HTTP, without the kernel, ms", 0),
    ("walk_slice_p99_us", "… the 99th percentile of its slices, µs", 0),
    ("walk_slice_longest_us", "… and the longest, µs", 0),
    ("shutdown_ms", "everybody planned and told in two waves, without the kernel, ms", 1),
    ("shutdown_slice_longest_us", "… and the longest tick of it, µs", 0),
    ("record_heap_bytes", "bytes of heap for a record", 0),
    ("order_heap_bytes", "… and for its place in the order", 1),
    ("connected_heap_bytes", "bytes of heap for record and session, without the connection", 0),
)


def scaling(results):
    sizes = results["scaling"]
    rows = [
        [title, *(f"{size[figure]:,.{digits}f}" for size in sizes)]
        for figure, title, digits in SCALING
        if figure in sizes[0]
    ]
    head = ["simulated clients", *(f"{size['clients']:,}" for size in sizes)]
    return "### Up to a million clients, simulated\n\n" + table(head, rows)


def conditions(results):
    sizes = results["sizes"]
    shares = [
        f"{name} {100 * median(values['connect_load_share']):.0f} %"
        for name, values in results["beside"].items()
    ]
    lines = [
        f"{results['machine']}.",
        "; ".join(f"{name}: {version}" for name, version in results["versions"].items()) + ".",
        f"{sizes['rounds']} rounds; {sizes['connections']:,} connections and {sizes['held']:,} "
        f"held clients, asked every {sizes['interval_ms']} ms, a server and round.",
        f"How busy the load's processor was while connecting: {', '.join(shares)}.",
    ]
    return "### Conditions\n\n" + "\n".join(lines)


def machine():
    model = next(
        (
            line.partition(":")[2].strip()
            for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text("ascii")
    return (
        f"{os.cpu_count()} processors ({model}), Linux {platform.release()}, "
        f"TCP congestion control {congestion.strip()}"
    )
