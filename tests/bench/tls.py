#!/usr/bin/python3
"""
What a TLS client costs cliserd, beside a plain one: processor time for a connection and for a
keep-alive, and memory while idle (docs/performance.md, "TLS"). The server has one core, the clients
another. Run it from the top of the source, with a release build; it prints its figures.
"""

import os
import pathlib
import selectors
import ssl
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))

from harness import Client, Server, ini_text, merged  # noqa: E402
from pki import Authority, TlsClient  # noqa: E402

CONNECTIONS = 600
IDLE = 3000
ANSWERING = 200
SECONDS = 4


def start(ca, kind, interval="10h"):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cliser-bench-tls-"))
    sections = merged({
        "server": {"tls_listen": "127.0.0.1:0", "tls_cert": str(ca.folder / f"{kind}.crt"),
                   "tls_key": str(ca.folder / f"{kind}.key")},
        "registry": {"store": "memory", "path": None},
        "keepalive": {"interval": interval, "misses": "255"}, "log": {"level": "warn"}})
    return Server(folder, ini_text(sections), wrap=("taskset", "-c", "0"))


def cpu_us(server):
    return int(pathlib.Path(f"/proc/{server.pid}/schedstat").read_text().split()[0]) / 1000


def connections(server, make):
    """Microseconds for a connection from accept to its end; the better of two runs."""
    best = None
    for run in range(2):
        before = cpu_us(server)
        for number in range(CONNECTIONS):
            with make(server) as client:
                client.handshake(f"c-{run}-{number}")
        time.sleep(0.1)
        took = (cpu_us(server) - before) / CONNECTIONS
        best = took if best is None else min(best, took)
    return best


def memory(ca, make):
    """Bytes of resident memory for an idle client, without what the first hundred set up."""
    server = start(ca, "ec")
    clients = [make(server).handshake(f"warm-{n}") for n in range(100)]
    before = server.rss_kib()
    clients += [make(server).handshake(f"idle-{n}") for n in range(IDLE)]
    time.sleep(0.3)
    took = (server.rss_kib() - before) * 1024 / IDLE
    for client in clients:
        client.close()
    server.finish()
    return took


def keepalives(ca, make):
    """Microseconds for a keep-alive and its answer."""
    server = start(ca, "ec", "50ms")
    selector = selectors.DefaultSelector()
    for number in range(ANSWERING):
        client = make(server).handshake(f"k-{number}")
        selector.register(client.sock, selectors.EVENT_READ, client)

    def answer(seconds):
        count = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(0.05):
                lines = key.data.sock.recv(4096).count(b"\n")
                key.data.sock.send(b"100\n" * lines)
                count += lines
        return count

    answer(1)
    before = cpu_us(server)
    count = answer(SECONDS)
    took = (cpu_us(server) - before) / count
    server.finish()
    return took


def main():
    os.sched_setaffinity(0, {1})
    ca = Authority(tempfile.mkdtemp(prefix="cliser-bench-ca-"))
    ca.issue("ec")
    ca.issue("rsa", key="rsa")
    versions = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}
    kinds = {"plain": Client}
    for name, version in versions.items():
        context = ca.context(version=version)
        kinds[name] = lambda server, context=context: TlsClient(server, context, may_be_cut=True)
        for key in ("ec", "rsa"):
            server = start(ca, key)
            plain = connections(server, Client)
            full = connections(server, kinds[name])
            with kinds[name](server).handshake("first") as client:
                ticket = client.sock.session
            resumed = connections(server, lambda server, context=context: TlsClient(
                server, context, session=ticket, may_be_cut=True))
            server.finish()
            print(f"TLS {name}, {key}: plain {plain:.0f} us, full {full:.0f} us, "
                  f"resumed {resumed:.0f} us a connection", flush=True)
    for name, make in kinds.items():
        print(f"{name}: {memory(ca, make):.0f} bytes a client, "
              f"{keepalives(ca, make):.1f} us a keep-alive", flush=True)


if __name__ == "__main__":
    main()
