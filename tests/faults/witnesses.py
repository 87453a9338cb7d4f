#!/usr/bin/python3
"""
The witnesses of a fault: witnesses.py COUNT PREFIX SOURCE CA ADDRESS... They come from that source
to the addresses in turn, which are HOST:PORT, or tls:HOST:PORT for TLS with the CA in that file.
Says "ready" when all are connected, and answers keep-alives. Each line on its standard input is
answered with one line of JSON, which says what has become of them since the line before; the end of
the input ends them, with a last one.

When a keep-alive came is what the kernel wrote on its packet: that this process was late to read it
is not the server's fault. Nothing is kept of what came, so they can stay for days.
"""

import contextlib
import json
import os
import pathlib
import select
import socket
import ssl
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))

import harness  # noqa: E402

SO_TIMESTAMPNS = 35


class Witness:
    """One of them. Its times are of the wall clock, as the kernel's are."""

    def __init__(self, cid, source, address):
        self.cid = cid
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((source, 0))
        self.sock.settimeout(harness.limit(30))
        self.sock.connect(address)
        self.shake_hands()
        self.send(f"{harness.PASSWORD}\n{cid}\n".encode())
        self.buffer = b""
        self.heard = None  # when the 140 or the last keep-alive came
        self.max_gap_s = 0.0
        self.lost = None  # why it is not connected any more

    def shake_hands(self):
        """Nothing to do without TLS."""

    def send(self, data):
        self.sock.sendall(data)

    def plain(self, chunk):
        """The bytes of the protocol in those that came."""
        return chunk

    def read(self):
        """Takes what has come; returns by how much later than the kernel that was, in seconds."""
        try:
            chunk, extra, _, _ = self.sock.recvmsg(4096, 64)
        except BlockingIOError:
            return 0.0
        except OSError as error:
            self.lost = str(error)
            return 0.0
        if not chunk:
            self.lost = self.lost or "closed"
            return 0.0
        now = came = time.time()
        try:
            chunk = self.plain(chunk)
        except ssl.SSLError as error:
            self.lost = str(error)
            return 0.0
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", data)
                came = seconds + nanoseconds / 1e9
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        for line in lines:
            self.take(line + b"\n", came)
        return now - came

    def take(self, line, came):
        if self.heard is None:
            if line == harness.CONNECTED:
                self.heard = came
            elif line not in (harness.ASK_PASSWORD, harness.ASK_ID):
                self.lost = repr(line)
        elif line == harness.KEEP_ALIVE:
            self.max_gap_s = max(self.max_gap_s, came - self.heard)
            self.heard = came
            with contextlib.suppress(OSError):  # reading says it better
                self.send(b"100\n")
        elif line in harness.REFUSALS.values():
            self.lost = repr(line)
        else:
            raise AssertionError(f"{self.cid} heard {line!r}")

    def report_gap(self):
        """The longest silence since the last report, one that goes on as well."""
        gap = max(self.max_gap_s, time.time() - self.heard)
        self.max_gap_s = 0.0
        return gap


class TlsWitness(Witness):
    """One whose TLS is in memory, so that its packets can be asked when they came."""

    def __init__(self, cid, source, address, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        super().__init__(cid, source, address)

    def shake_hands(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                chunk = self.sock.recv(65536)
                if not chunk:
                    sys.exit(f"{self.cid} could not connect: closed within the TLS handshake")
                self.incoming.write(chunk)
        self.sock.sendall(self.outgoing.read())

    def send(self, data):
        self.tls.write(data)
        self.sock.sendall(self.outgoing.read())

    def plain(self, chunk):
        self.incoming.write(chunk)
        found = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while some := self.tls.read(65536):
                found += some
        return found


def witnesses_at(count, prefix, source, ca, addresses):
    context = ssl.create_default_context(cafile=ca) if ca else None
    for number in range(count):
        address = addresses[number % len(addresses)]
        host, port = address.removeprefix("tls:").rsplit(":", 1)
        where = (f"{prefix}-{number}", source, (host, int(port)))
        yield TlsWitness(*where, context) if address.startswith("tls:") else Witness(*where)


def report(witnesses, failure, max_delay_s):
    return json.dumps({
        "failure": failure,
        "lost": [f"{one.cid}: {one.lost}" for one in witnesses if one.lost],
        "max_gap_s": max((one.report_gap() for one in witnesses if not one.lost), default=0.0),
        "own_delay_s": max_delay_s,
    })


def connect(poll, coming):
    """Lets all of them in. Those who are answer while the others come: TLS takes its time."""
    by_fd = {}
    missing = []

    def listen(timeout=None):
        for fd, _ in poll.poll(timeout):
            by_fd[fd].read()
            if by_fd[fd].lost:
                sys.exit(f"{by_fd[fd].cid} could not connect: {by_fd[fd].lost}")

    for one in coming:
        one.sock.setblocking(False)
        poll.register(one.sock, select.EPOLLIN)
        by_fd[one.sock.fileno()] = one
        missing.append(one)
        listen(0)
    while missing := [one for one in missing if one.heard is None]:
        listen()
    return by_fd


def main():
    count, prefix, source, ca, *addresses = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.nice(-10)  # an answer that is late may be a client that is dropped
    poll = select.epoll()
    by_fd = connect(poll, witnesses_at(int(count), prefix, source, ca, addresses))
    witnesses = list(by_fd.values())
    poll.register(0, select.EPOLLIN)
    print("ready", flush=True)

    failure = None
    max_delay_s = 0.0
    asked = True
    while asked:
        for fd, _ in poll.poll():
            if fd == 0:
                asked = os.read(0, 1)
                # What waits in the kernel has come, whether it was read or not.
                for one in witnesses:
                    if not one.lost:
                        one.read()
                print(report(witnesses, failure, max_delay_s), flush=True)
                max_delay_s = 0.0
                continue
            one = by_fd[fd]
            try:
                max_delay_s = max(max_delay_s, one.read())
            except AssertionError as error:  # a line that should not have come
                failure = str(error)
                one.lost = failure
            if one.lost:
                poll.unregister(fd)


if __name__ == "__main__":
    main()
