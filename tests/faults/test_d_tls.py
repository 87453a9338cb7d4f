"""Rows D: peers that stop, vanish or cheat within TLS, certificates that change, and floods."""

import contextlib
import os
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings

import pytest

from harness import ASK_PASSWORD, SCALE, Client, limit, wait_until
from oracle import Witnesses, fault
from pki import TLS_KEYS, MemoryTls, TlsClient, pair, place

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = (V12, V13)
DEADLINE_S = 1.0
QUICK = {"limits": {"handshake_timeout": f"{int(DEADLINE_S * 1000)}ms"}}


@pytest.fixture
def start(case, folder, ca):
    """Starts the case's server with TLS; half of the witnesses use it."""
    def start_it(overrides=None, name="server", **options):
        place(folder, *pair(ca, name))
        sections = dict(overrides or {})
        sections["server"] = {**TLS_KEYS, **sections.get("server", {})}
        return case.start(sections, ca=ca, **options)

    return start_it


def grown(case, *series):
    """By how much these have grown, all in all, since the case began."""
    now = case.control.metrics()
    return sum(now[name] - case.metrics[name] for name in series)


def handshakes(result):
    return f'cliser_tls_handshakes_total{{result="{result}"}}'


def abandoned(reason):
    return f'cliser_handshakes_abandoned_total{{reason="{reason}"}}'


def refused(code):
    return f'cliser_refusals_total{{code="{code}"}}'


def disconnected(reason):
    return f'cliser_disconnects_total{{reason="{reason}"}}'


def wait_freed(case):
    """No TLS connection is left but those of witnesses."""
    wait_until(lambda: grown(case, "cliser_tls_connections") == 0, 10, "no TLS connection left")


def go_until(client, flight, share):
    """
    Goes through the handshake, up to so much of the client's flight: 0 is its hello, 1 its last
    word, and 2 means that all is done.
    """
    sent = 0
    done = False
    while not done:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
            done = True
        data = client.out()
        if data and sent == flight:
            client.sock.sendall(data[:int(len(data) * share)])
            return
        if data:
            client.sock.sendall(data)
            sent += 1
        if not done:
            assert client.read_more(), "the server closed within the handshake"
    assert flight == 2


def wait_ends(clients):
    """Reads until all streams have ended; returns when each has."""
    ends = {}
    poll = select.poll()
    by_fd = {client.sock.fileno(): client for client in clients}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + limit(10)
    while len(ends) < len(by_fd):
        assert time.monotonic() < end, f"{len(by_fd) - len(ends)} are still open"
        for fd, _ in poll.poll(100):
            if not by_fd[fd].sock.recv(65536):
                ends[by_fd[fd]] = time.monotonic()
                poll.unregister(fd)
    return ends


# --- D01 ----------------------------------------------------------------------------------------

STALLS = {"silent": (0, 0), "half a hello": (0, 0.5), "after the server's": (1, 0)}


@fault("D01", "TLS handshakes that stall, 45 at once", rounds=1, full=20)
def test_stalled_handshakes_are_closed_at_the_deadline(case, start, ca):
    server = start(QUICK)
    each = 15
    for _ in range(case.rounds):
        with contextlib.ExitStack() as stack:
            opened = {}
            for stall in STALLS.values():
                for number in range(each):
                    before = time.monotonic()
                    client = stack.enter_context(
                        MemoryTls(server, ca.context(version=VERSIONS[number % 2])))
                    opened[client] = before, time.monotonic()
                    go_until(client, *stall)
            for client, ended in wait_ends(opened).items():
                earliest, latest = opened[client]
                assert ended - earliest > DEADLINE_S - 0.05, "closed before the deadline"
                assert ended - latest < limit(DEADLINE_S + 1)
    wait_freed(case)
    count = case.rounds * each * len(STALLS)
    assert grown(case, refused(408)) == grown(case, handshakes("abandoned")) == count
    with Client(server) as client:
        assert client.outcome("after") == 140


# --- D02 ----------------------------------------------------------------------------------------

CUTS = [(0, 0), (0, 0.5), (0, 1), (1, 0), (1, 0.5), (1, 1), (2, 0)]
RESET = struct.pack("ii", 1, 0)


@fault("D02", "resets at every point of a TLS handshake, fourteen of them", rounds=10, full=300)
def test_resets_within_the_handshake_leak_nothing(case, start, ca):
    server = start()
    contexts = [ca.context(version=version) for version in VERSIONS]
    for number in range(case.rounds):
        for context in contexts:
            for flight, share in CUTS:
                with MemoryTls(server, context) as client:
                    go_until(client, flight, share)
                    if flight == 2 and number % 2:
                        assert client.read_line() == ASK_PASSWORD
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_freed(case)
    count = case.rounds * len(VERSIONS) * len(CUTS)
    assert grown(case, abandoned("reset"), abandoned("left")) == count
    assert grown(case, abandoned("tls"), handshakes("failed")) == 0
    with TlsClient(server, ca.context()) as client:
        assert client.outcome("after") == 140


# --- D03 ----------------------------------------------------------------------------------------

NO_TLS = {
    "password": b"secret\nweb-1\n",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "zeros": bytes(300),
    "sslv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(300),
    "sslv3": bytes.fromhex("160300002f0100002b0300") + bytes(33) +
             bytes.fromhex("0004c02fc0130100"),
    "record-of-64k": b"\x16\x03\x01\xff\xff" + bytes(65535),
    "message-of-16m": bytes.fromhex("1603014000") + b"\x01\xff\xff\xff" + bytes(16380),
    "data-first": b"\x17\x03\x03\x00\x07secret\n",
    "alert-first": b"\x15\x03\x01\x00\x02\x02\x28",
}
OLD = {
    "1.0": {"version": ssl.TLSVersion.TLSv1, "ciphers": "ALL:@SECLEVEL=0"},
    "1.1": {"version": ssl.TLSVersion.TLSv1_1, "ciphers": "ALL:@SECLEVEL=0"},
    "no-forward-secrecy": {"version": V12, "ciphers": "AES256-GCM-SHA384"},
    "finite-field": {"version": V12, "ciphers": "DHE-RSA-AES256-GCM-SHA384"},
    "cbc": {"version": V12, "ciphers": "ECDHE-RSA-AES128-SHA256"},
    "sha1": {"version": V12, "ciphers": "ECDHE-RSA-AES256-SHA:@SECLEVEL=0"},
    "nobody-known": {"version": V12, "ciphers": "aNULL:@SECLEVEL=0"},
}


def old_context(ca, version, ciphers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ca.context(version=version)
    context.set_ciphers(ciphers)
    return context


def drip(sock, data, pause_s):
    """A byte at a time, until there is nobody to take it."""
    with contextlib.suppress(OSError):
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(pause_s)


@fault("D03", "no TLS, old TLS, weak TLS, TLS byte by byte", rounds=1, full=20)
def test_what_is_not_our_tls_is_refused_and_counted_once(case, start, ca):
    server = start(QUICK, name="rsa")
    count = 0

    def one_more(what):
        """The sum over all reasons is the oracle's."""
        nonlocal count
        count += 1
        wait_until(lambda: grown(case, abandoned("tls")) == count, 5, f"{what} counted")
        assert grown(case, handshakes("failed")) == count, what

    for _ in range(case.rounds):
        for what, data in NO_TLS.items():
            with Client(server.tls_address) as client:
                with contextlib.suppress(ConnectionError):  # it need not have read all of it
                    client.send(data)
                    answer = client.sock.recv(100)
                    assert answer[:1] in (b"", b"\x15"), f"{what}: neither an alert nor an end"
                one_more(what)
        for what, options in OLD.items():
            with pytest.raises((ssl.SSLError, ConnectionError)):
                TlsClient(server, old_context(ca, **options))
            one_more(what)
        with MemoryTls(server, ca.context()) as client:
            began = time.monotonic()
            drip(client.sock, client.first_flight(), 0.02)
            assert time.monotonic() - began < limit(DEADLINE_S + 1)
        # In time, and then all of a session in records of a byte.
        with TlsClient(server, ca.context()) as client:
            for byte in b"secret\ndripping\n" + b"100\n" * 500:
                client.send(bytes([byte]))
            assert client.outcome("dripping") == 140
    assert grown(case, refused(408)) == case.rounds
    wait_freed(case)


@fault("D03", "a TLS 1.2 client that wants to renegotiate", rounds=2, full=50)
def test_renegotiation_is_refused(case, start, ca):
    server = start()
    host, port = server.tls_address
    for _ in range(case.rounds):
        client = subprocess.Popen(
            ["openssl", "s_client", "-tls1_2", "-connect", f"{host}:{port}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = b""
        while b"110: " not in said:
            chunk = os.read(client.stdout.fileno(), 65536)
            assert chunk, said
            said += chunk
        said, _ = client.communicate(b"R\n", timeout=limit(10))
        assert b"no renegotiation" in said
    wait_freed(case)
    assert grown(case, handshakes("full")) == case.rounds


# --- D04 ----------------------------------------------------------------------------------------


def come_and_be_killed(case, ca):
    """A process with TLS clients, which answer until it is killed."""
    gone = Witnesses(case.server, case.rounds, "gone", addresses=[case.server.tls_address], ca=ca)
    try:
        wait_until(lambda: case.connected() == case.witnesses.count + case.rounds)
        assert not gone.report()["lost"]
    finally:
        gone.kill()
    wait_until(lambda: case.connected() == case.witnesses.count, 10, "nobody but the witnesses")


@fault("D04", "kill -9 of a process with TLS clients", rounds=50, full=1000)
def test_end_without_close_notify_is_an_end(case, start, ca):
    start()
    # Once, so that the heap is as large as it needs to be.
    come_and_be_killed(case, ca)
    case.begin()
    case.allow("each coming and going is a line", log_lines=2 * case.rounds + 100)
    come_and_be_killed(case, ca)
    wait_freed(case)
    # A question on its way, which nobody reads any more, makes a reset of an end.
    left, reset = grown(case, disconnected("left")), grown(case, disconnected("reset"))
    case.note(f"{left:.0f} left, {reset:.0f} reset")
    assert left + reset == case.rounds and left >= 0.9 * case.rounds
    assert grown(case, disconnected("tls"), abandoned("tls"), handshakes("failed")) == 0


# --- D05 ----------------------------------------------------------------------------------------


@fault("D05", "a last line together with the end, in twelve ways", rounds=3, full=100)
def test_line_that_comes_with_the_end_counts(case, start, ca):
    server = start()
    contexts = [ca.context(version=version) for version in VERSIONS]
    count = 0
    for _ in range(case.rounds):
        for context in contexts:
            for ending in ("close_notify", "fin", "both"):
                for kept in (b"", b"wro"):
                    with MemoryTls(server, context) as client:
                        client.handshake()
                        assert client.read_line() == ASK_PASSWORD
                        if kept:
                            before = case.control.metrics()["cliser_received_bytes_total"]
                            client.sock.sendall(client.record(kept))
                            wait_until(lambda: case.control.metrics()[
                                "cliser_received_bytes_total"] >= before + len(kept))
                        last = client.record(b"wrong\n"[len(kept):])
                        if ending != "fin":
                            last += client.close_notify()
                        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                        client.sock.sendall(last)
                        if ending != "close_notify":
                            client.sock.shutdown(socket.SHUT_WR)
                        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                        count += 1
                        wait_until(lambda: grown(case, refused(410)) == count, 5,
                                   f"the line of {ending}, {kept} kept")
    wait_freed(case)


# --- D06 ----------------------------------------------------------------------------------------


class Load:
    """TLS clients that come and go in a thread, all the time."""

    def __init__(self, server, context):
        self.server, self.context = server, context
        self.outcomes = []
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.is_set():
                with TlsClient(self.server, self.context) as client:
                    self.outcomes.append(client.outcome(f"load-{len(self.outcomes)}"))
        except BaseException as failure:  # shown by stop(), in the thread that can fail the test
            self.failure = failure

    def stop(self):
        self._stop.set()
        self._thread.join()
        if self.failure:
            raise self.failure


def serial_of(served):
    return served.sock.getpeercert()["serialNumber"]


def unreadable(folder, ca):
    (folder / "cert.pem").unlink()
    (folder / "cert.pem").mkdir()


def dangling(folder, ca):
    (folder / "key.pem").unlink()
    (folder / "key.pem").symlink_to("nowhere")


# How the files are made bad, and which key of the configuration is at fault.
BAD = {
    "expired": ("tls_cert", lambda folder, ca: place(folder, *pair(ca, "expired"))),
    "not yet": ("tls_cert", lambda folder, ca: place(folder, *pair(ca, "future"))),
    "wrong key": ("tls_key", lambda folder, ca: place(folder, pair(ca)[0], pair(ca, "second")[1])),
    "empty": ("tls_cert", lambda folder, ca: (folder / "cert.pem").write_bytes(b"")),
    "open to others": ("tls_key", lambda folder, ca: (folder / "key.pem").chmod(0o644)),
    "unreadable": ("tls_cert", unreadable),
    "dangling": ("tls_key", dangling),
}


def clear(folder):
    for name in ("cert.pem", "key.pem"):
        path = folder / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def swap_link(folder, ca, name):
    """As certbot does: both files are reached by way of a link, which is replaced at once."""
    home = folder / f"live-{name}"
    if not home.exists():
        home.mkdir()
        place(home, *pair(ca, name))
    (folder / "new").symlink_to(home)
    os.rename(folder / "new", folder / "live")
    if not (folder / "cert.pem").is_symlink():
        clear(folder)
        for file in ("cert.pem", "key.pem"):
            (folder / file).symlink_to(f"live/{file}")


@fault("D06", "certificates that change under load: good, bad, and by a link", rounds=1, full=30)
def test_certificates_change_and_disconnect_nobody(case, start, ca, folder):
    server = start()
    served = set()

    def serial():
        with TlsClient(server, ca.context()) as client:
            return serial_of(client)

    load = Load(server, ca.context())
    try:
        for _ in range(case.rounds):
            clear(folder)
            place(folder, *pair(ca))
            server.reload()
            first = serial()
            for what, (key, spoil) in BAD.items():
                spoil(folder, ca)
                mark = server.mark_log()
                server.reload(event="reload_failed")
                assert server.wait_log(rf"cliser\.ini:\d+: {key}: ", start=mark), what
                assert serial() == first, what
                clear(folder)
                place(folder, *pair(ca))
            place(folder, *pair(ca, "second"))
            assert serial() == first, "taken without being asked to"
            server.reload()
            assert serial() != first
            for name, is_first in (("server", True), ("second", False)):
                swap_link(folder, ca, name)
                server.reload()
                assert (serial() == first) == is_first, name
    finally:
        load.stop()
    case.allow("clients and reloads are lines", log_lines=10 * len(load.outcomes) + 2000)
    case.allow("records of the clients are kept", memory_kib=6 * 1024 + len(load.outcomes))
    assert set(load.outcomes) == {140} and len(load.outcomes) > case.rounds
    case.note(f"{len(load.outcomes)} clients meanwhile")
    wait_freed(case)


# --- D07 ----------------------------------------------------------------------------------------


@fault("D07", "four processes that shake hands as fast as they can, so many seconds", rounds=3,
       full=30)
def test_flood_of_full_handshakes(case, start, ca):
    server = start(name="rsa")
    host, port = server.tls_address
    # Behind us and the server where processors are scarce: we measure.
    floods = [subprocess.Popen(["nice", "openssl", "s_time", "-connect", f"{host}:{port}",
                                "-new", "-time", str(case.rounds)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
              for _ in range(4)]
    comers = {"plain": lambda: Client(server), "TLS": lambda: TlsClient(server, ca.context())}
    slowest = dict.fromkeys(comers, 0.0)
    entered = 0
    try:
        while any(flood.poll() is None for flood in floods):
            for kind, come in comers.items():
                began = time.monotonic()
                with come() as client:
                    assert client.outcome(f"good-{entered % 100}") in (140, 421)
                slowest[kind] = max(slowest[kind], time.monotonic() - began)
                entered += 1
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
    case.allow("good clients are lines", log_lines=3 * entered + 200)
    full = grown(case, handshakes("full"))
    case.note(f"{full / case.rounds:.0f} handshakes a second; {entered} others entered, plain ones "
              f"in {slowest['plain']:.2f} s at most, by TLS in {slowest['TLS']:.2f} s")
    assert full > 50 * case.rounds / SCALE
    waited_s = case.processor_wait.worst(2)
    assert slowest["plain"] < limit(1) + waited_s and slowest["TLS"] < limit(3) + waited_s
    wait_freed(case)


def crowd_of_hellos(case, hello, count):
    """
    So many connections that are accepted, and then say hello all at once. Returns how long it took
    until each had its answer, how many good clients entered meanwhile, and the slowest of those.
    """
    server = case.server
    before = case.control.metrics()["cliser_tls_connections"]
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(server.tls_address))
                 for _ in range(count)]
        wait_until(lambda: case.control.metrics()["cliser_tls_connections"] == before + count, 20)
        began = time.monotonic()
        for sock in crowd:
            sock.sendall(hello)
        answered = stack.enter_context(select.epoll())
        for sock in crowd:
            answered.register(sock, select.EPOLLIN | select.EPOLLONESHOT)
        left = count
        slowest = entered = 0
        while left > 0:
            assert time.monotonic() - began < limit(60), f"{left} hellos without an answer"
            left -= len(answered.poll(0, count))
            came = time.monotonic()
            with Client(server) as client:
                assert client.outcome(f"good-{entered % 100}") in (140, 421)
            slowest = max(slowest, time.monotonic() - came)
            entered += 1
        took = time.monotonic() - began
    wait_until(lambda: case.control.metrics()["cliser_tls_connections"] == before, 10)
    return took, entered, slowest


@fault("D07", "thousands of hellos at once", rounds=2000, full=4500)
def test_crowd_of_hellos(case, start, ca):
    """Each costs the server a signature, and the client nothing: it is the same one again."""
    start({"limits": {"handshake_timeout": "10h", "max_tls_pending": 2 * case.rounds + 100}},
          name="rsa")
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ca.context(version=V13).wrap_bio(ssl.MemoryBIO(), out,
                                         server_hostname="localhost").do_handshake()
    hello = out.read()
    # Once, so that the heap is as large as it needs to be.
    crowd_of_hellos(case, hello, case.rounds)
    case.begin()
    took, entered, slowest = crowd_of_hellos(case, hello, case.rounds)
    case.allow("good clients are lines", log_lines=3 * entered + 200)
    case.note(f"{case.rounds / took:.0f} answers a second; {entered} others entered, "
              f"in {slowest:.2f} s at most")
    assert slowest < limit(0.5) + case.processor_wait.worst(1)
