"""TLS: docs/protocol.md, "TLS". Certificates are made by openssl(1), clients are Python's ssl."""

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from control import Control
from harness import (ASK_ID, ASK_PASSWORD, BIN, CONNECTED, KEEP_ALIVE, REFUSALS, Client, Witness,
                     holds_for, limit, run, wait_until)
from pki import (TLS_KEYS, Authority, LibsslTls, MemoryTls, TlsClient, openssl, pair,
                 place)

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
FAST = {"interval": "100ms", "misses": 3}


@pytest.fixture
def start_tls(start_server, folder, ca):
    """Starts a server whose cert.pem and key.pem are copies that a test may change."""
    def start(overrides=None, cert=None, client_ca=None, **options):
        place(folder, *(cert or pair(ca)))
        keys = dict(TLS_KEYS)
        if client_ca:
            keys["tls_client_ca"] = client_ca
        overrides = dict(overrides or {})
        overrides["server"] = {**keys, **overrides.get("server", {})}
        overrides.setdefault("log", {"level": "debug"})
        return start_server(overrides, **options)

    return start


def serial(client):
    return client.sock.getpeercert()["serialNumber"]


def serial_served(server, ca):
    with TlsClient(server, ca.context()) as client:
        return serial(client)


def end_of(server, cid):
    """Why the session with this ID has ended, according to the log."""
    return server.wait_log(rf" disconnected .*cid={cid} .*reason=(\w+)").group(1)


def metrics(server):
    return Control(server).metrics()


# --- a session ----------------------------------------------------------------------------------


@BOTH
def test_session_over_tls_goes_as_every_other(start_tls, ca, version):
    server = start_tls({"keepalive": FAST})
    with TlsClient(server, ca.context(version=version)).handshake("web-1") as client:
        assert client.sock.version() == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]
        assert len(client.answer(time.monotonic() + limit(10), rounds=4)) == 4
        client.leave()
    assert end_of(server, "web-1") == "left"
    wait_until(lambda: server.rows()["web-1"]["cstatus"] == 0)


def test_ready_line_has_the_addresses_of_tls_behind_the_others(start_tls):
    server = start_tls({"server": {"listen": "127.0.0.1:0, [::1]:0",
                                   "tls_listen": "127.0.0.1:0, [::1]:0"}})
    kinds = [re.sub(r"\d+$", "N", address) for address in server.addresses]
    assert kinds == ["127.0.0.1:N", "[::1]:N", "tls:127.0.0.1:N", "tls:[::1]:N"]


def test_answers_sent_ahead_are_taken_in_order(start_tls, ca):
    server = start_tls()
    with TlsClient(server, ca.context()) as client:
        client.send(b"secret\nweb-1\n100\n")
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)


@BOTH
def test_how_bytes_are_cut_into_records_means_nothing(start_tls, ca, version):
    server = start_tls({"keepalive": FAST})
    with TlsClient(server, ca.context(version=version)) as client:
        for byte in b"secret\r\nweb-1\r\n":
            client.send(bytes([byte]))
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)
        for _ in range(3):
            client.expect(KEEP_ALIVE)
            for byte in b"100\n":
                client.send(bytes([byte]))
        client.leave()
    assert end_of(server, "web-1") == "left"


@pytest.mark.parametrize("held", [b"secret\nweb-1\n", b"secr"], ids=["whole", "half-a-line-kept"])
def test_record_longer_than_a_read_is_taken_whole(start_tls, ca, held):
    """Nobody would wake the server for what is left of a record that it has begun."""
    server = start_tls()
    with TlsClient(server, ca.context()) as client:
        client.send(held)
        if held == b"secr":
            time.sleep(0.1)  # it is read, and kept
            client.send(b"et\nweb-1\n")
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)
        client.send(b"100\n" * 4000 + b"x\n" * 9)
        client.expect_refusal(400)


def test_refusal_comes_whole_and_is_followed_by_close_notify(start_tls, ca):
    server = start_tls()
    for password, cid, code in (("wrong", "web-1", 410), ("secret", "a b", 420)):
        with TlsClient(server, ca.context()) as client:
            assert client.outcome(cid, password) == code


def test_duplicate_is_probed_over_tls(start_tls, ca):
    server = start_tls()
    with TlsClient(server, ca.context()).handshake("web-1") as holder:
        with TlsClient(server, ca.context()) as newcomer:
            newcomer.authenticate()
            newcomer.send_line("web-1")
            holder.expect(KEEP_ALIVE)
            holder.send_line("100")
            newcomer.expect_refusal(421)


def test_stop_and_drain_end_tls_in_order(start_tls, ca):
    server = start_tls({"server": {"drain": "200ms"}})
    clients = [TlsClient(server, ca.context()).handshake(f"web-{n}") for n in range(5)]
    server.signal(signal.SIGQUIT)
    for client in clients:
        client.expect_refusal(460)
        client.close()
    assert server.wait_exit() == 0


def test_stop_says_close_notify(start_tls, ca):
    server = start_tls()
    with TlsClient(server, ca.context()).handshake("web-1") as client:
        server.signal(signal.SIGTERM)
        client.expect_close()
    assert server.wait_exit() == 0


# --- ends ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kept", [b"", b"10"], ids=["", "half-a-line-kept"])
def test_end_without_close_notify_is_an_end(start_tls, ca, version, kept):
    server = start_tls()
    with TlsClient(server, ca.context(version=version)).handshake("web-1") as client:
        if kept:
            client.send(kept)
            time.sleep(0.1)
    assert end_of(server, "web-1") == "left"


@BOTH
@pytest.mark.parametrize("kept", [b"", b"10"], ids=["", "half-a-line-kept"])
def test_reset_is_a_reset(start_tls, ca, version, kept):
    server = start_tls()
    client = TlsClient(server, ca.context(version=version)).handshake("web-1")
    if kept:
        client.send(kept)
        time.sleep(0.1)
    client.rst()
    assert end_of(server, "web-1") == "reset"


@BOTH
@pytest.mark.parametrize("kept", [b"", b"10"], ids=["", "half-a-line-kept"])
def test_what_is_no_tls_ends_the_session_and_is_blamed_on_nobody_else(start_tls, ca, version, kept):
    server = start_tls()
    with TlsClient(server, ca.context()).handshake("other") as other:
        with TlsClient(server, ca.context(version=version)).handshake("web-1") as client:
            if kept:
                client.send(kept)
                time.sleep(0.1)
            client.send_raw(b"this is no record of TLS, whatever it is\n")
            assert end_of(server, "web-1") == "tls"
        other.send_line("100")
        with TlsClient(server, ca.context()).handshake("web-3") as third:
            third.leave()
        assert end_of(server, "web-3") == "left"
        other.leave()
    assert end_of(server, "other") == "left"


@BOTH
@pytest.mark.parametrize("kept", [b"", b"wro"], ids=["", "half-a-line-kept"])
@pytest.mark.parametrize("ending", ["close_notify", "fin", "both"])
def test_line_that_comes_with_the_end_counts(start_tls, ca, version, kept, ending):
    server = start_tls()
    with MemoryTls(server, ca.context(version=version)) as client:
        client.handshake()
        assert client.read_line() == ASK_PASSWORD
        if kept:
            client.sock.sendall(client.record(kept))
            time.sleep(0.1)
        last = client.record(b"wrong\n"[len(kept):])
        if ending != "fin":
            last += client.close_notify()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        client.sock.sendall(last)
        if ending != "close_notify":
            client.sock.shutdown(socket.SHUT_WR)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        server.wait_log(r" refused .*reason=password")


def test_peer_that_does_not_read_is_dropped_as_slow(start_tls, ca):
    server = start_tls({"keepalive": {"interval": "100ms", "misses": 255, "require_reply": "no"},
                        "limits": {"handshake_timeout": "10h"}})
    deaf = TlsClient(server, ca.context(), may_be_cut=True, rcvbuf=2048, mss=536).handshake("deaf")
    with Witness(server) as witness:
        end = time.monotonic() + limit(60)
        probes = 0
        # As in test_garbage.py: each newcomer with its ID makes the server ask it at once.
        while not server.find_log(r" disconnected .*cid=deaf"):
            assert time.monotonic() < end, f"not dropped after {probes} probes"
            with Client(server) as newcomer:
                newcomer.send(b"secret\ndeaf\n")
                newcomer.expect(ASK_PASSWORD)
                newcomer.expect(ASK_ID)
            probes += 1
        assert end_of(server, "deaf") == "slow"
        assert probes >= 65536 // 17, "dropped too early"
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
    deaf.close()


def test_slow_reader_gets_every_line_in_the_end(start_tls, ca):
    """What the kernel did not take goes through the bufferevent, in order and unharmed."""
    server = start_tls({"keepalive": {"interval": "10h"}, "limits": {"handshake_timeout": "10h"}})
    lazy = TlsClient(server, ca.context(), rcvbuf=2048, mss=536).handshake("lazy")
    probes = 2500
    for _ in range(probes):
        with Client(server) as newcomer:
            newcomer.send(b"secret\nlazy\n")
            newcomer.expect(ASK_PASSWORD)
            newcomer.expect(ASK_ID)
    for _ in range(probes):
        lazy.expect(KEEP_ALIVE)
    lazy.leave()
    assert end_of(server, "lazy") == "left"


# --- handshakes that fail -----------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1],
                         ids=["1.0", "1.1"])
def test_old_versions_are_refused(start_tls, ca, version):
    server = start_tls()
    context = ca.context()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        TlsClient(server, context)
    server.wait_log(r" tls_failed .*error=")
    server.wait_log(r" refused .*reason=tls")


@pytest.mark.parametrize("ciphers", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA256"],
                         ids=["no-forward-secrecy", "no-aead"])
def test_weak_ciphers_are_refused(start_tls, ca, ciphers):
    server = start_tls()
    context = ca.context(version=V12)
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError):
        TlsClient(server, context)
    server.wait_log(r" refused .*reason=tls")


@pytest.mark.parametrize("text", [b"secret\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 20,
                                  b"\x80" * 300],
                         ids=["password", "http", "zeros", "sslv2"])
def test_what_is_no_tls_is_refused_without_a_line(start_tls, text):
    server = start_tls()
    with Client(server.tls_address) as client:
        client.send(text)
        with contextlib.suppress(ConnectionResetError):
            assert b"1" not in client.sock.recv(100)[:1], "a line of the protocol was not encrypted"
    server.wait_log(r" refused .*reason=tls")


@pytest.mark.parametrize("share", [0, 0.5], ids=["silent", "half-a-hello"])
def test_stalled_handshake_ends_at_the_deadline(start_tls, ca, share):
    server = start_tls({"limits": {"handshake_timeout": "500ms"}, "keepalive": FAST})
    with Witness(server) as witness, MemoryTls(server, ca.context()) as client:
        hello = client.first_flight()
        began = time.monotonic()
        client.sock.sendall(hello[:int(len(hello) * share)])
        assert client.sock.recv(100) == b""
        assert 0.4 < time.monotonic() - began < limit(2)
        server.wait_log(r" refused .*reason=timed_out")
        witness.check(max_gap=1.0)
    with TlsClient(server, ca.context()).handshake("web-1"):
        assert metrics(server)['cliser_tls_handshakes_total{result="abandoned"}'] == 1


def test_dripping_handshake_ends_at_the_deadline(start_tls, ca):
    server = start_tls({"limits": {"handshake_timeout": "500ms"}})
    with MemoryTls(server, ca.context()) as client:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in client.first_flight():
                client.sock.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < limit(2)
    server.wait_log(r" refused .*reason=timed_out")


def test_dripping_handshake_that_ends_in_time_is_a_handshake(start_tls, ca):
    server = start_tls()
    with MemoryTls(server, ca.context()) as client:
        for byte in client.first_flight():
            client.sock.sendall(bytes([byte]))
        client.handshake()
        assert client.read_line() == ASK_PASSWORD


def test_tls_and_password_share_one_deadline(start_tls, ca):
    server = start_tls({"limits": {"handshake_timeout": "600ms"}})
    with MemoryTls(server, ca.context()) as client:
        began = time.monotonic()
        time.sleep(0.4)
        client.handshake()
        assert client.read_line() == ASK_PASSWORD
        assert client.read_line() == REFUSALS[408]
        assert 0.5 < time.monotonic() - began < limit(0.95)


@pytest.mark.parametrize("share", [0, 0.5, 1], ids=["silent", "half-a-hello", "hello"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_peer_that_goes_within_the_handshake(start_tls, ca, share, reset):
    server = start_tls()
    with MemoryTls(server, ca.context()) as client:
        hello = client.first_flight()
        client.sock.sendall(hello[:int(len(hello) * share)])
        time.sleep(0.05)
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.wait_log(r" refused .*reason=(left|reset)")
    with TlsClient(server, ca.context()).handshake("web-1"):
        pass


def test_client_that_does_not_trust_us_is_told_from_others(start_tls):
    server = start_tls()
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(server, ssl.create_default_context())
    server.wait_log(r' tls_failed .*error=".*unknown ca')
    assert metrics(server)['cliser_tls_handshakes_total{result="failed"}'] == 1


def test_handshakes_leave_no_descriptor_behind(start_tls, ca):
    server = start_tls({"limits": {"handshake_timeout": "500ms"}})
    with TlsClient(server, ca.context()).handshake("web-1"):
        pass
    end_of(server, "web-1")
    before = server.fds()
    for number in range(40):
        with MemoryTls(server, ca.context()) as client:
            hello = client.first_flight()
            client.sock.sendall(hello[:number * 15] if number % 4 else b"nonsense" * number)
            if number % 3 == 0:
                with contextlib.suppress(OSError, AssertionError):
                    client.handshake()
    wait_until(lambda: server.fds() <= before, what="as many descriptors as before")
    with TlsClient(server, ca.context()).handshake("web-2"):
        assert metrics(server)["cliser_tls_connections"] == 1


# --- a stall of the server ----------------------------------------------------------------------


@BOTH
def test_stopped_server_drops_nobody_who_answered_meanwhile(start_tls, ca, version):
    server = start_tls({"keepalive": {"interval": "300ms", "misses": 2, "require_reply": "yes"}})
    clients = [TlsClient(server, ca.context(version=version)).handshake(f"web-{n}")
               for n in range(10)]
    for client in clients[:5]:
        client.send(b"1")  # these have a bufferevent
        time.sleep(0.02)
        client.send(b"00\n")
    stop = threading.Event()

    def answer(client):
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                if client.recv_line(0.05, scaled=False) == KEEP_ALIVE:
                    client.send_line("100")

    threads = [threading.Thread(target=answer, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.7)
            server.signal(signal.SIGSTOP)
            time.sleep(1.5)  # longer than interval × (misses + 1)
            server.signal(signal.SIGCONT)
        time.sleep(1.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert " disconnected " not in server.log_text()
    for client in clients:
        client.close()


def test_handshake_that_waited_for_a_stopped_server_goes_on(start_tls, ca):
    server = start_tls({"limits": {"handshake_timeout": "400ms"}})
    with MemoryTls(server, ca.context()) as before_hello, \
            MemoryTls(server, ca.context()) as silent:
        wait_until(lambda: metrics(server)["cliser_tls_connections"] == 2)
        server.signal(signal.SIGSTOP)
        before_hello.sock.sendall(before_hello.first_flight())
        time.sleep(1.0)
        server.signal(signal.SIGCONT)
        before_hello.handshake()
        assert before_hello.read_line() == ASK_PASSWORD
        assert silent.sock.recv(10) == b""


def test_lines_do_not_wait_behind_handshakes(start_tls, ca):
    """Of 200 handshakes that can go on and a line that came last, the line is taken first."""
    server = start_tls(cert=pair(ca, "rsa"))

    def answered_before_the_line():
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(MemoryTls(server, ca.context())) for _ in range(200)]
            hellos = [client.first_flight() for client in crowd]
            plain = stack.enter_context(Client(server))
            plain.expect(ASK_PASSWORD)
            wait_until(lambda: metrics(server)["cliser_tls_connections"] == len(crowd))
            server.signal(signal.SIGSTOP)
            for client, hello in zip(crowd, hellos):
                client.sock.sendall(hello)
            plain.send_line("secret")
            server.signal(signal.SIGCONT)
            plain.expect(ASK_ID)
            poll = select.poll()
            for client in crowd:
                poll.register(client.sock, select.POLLIN)
            return len(poll.poll(0))

    # This process may have been the one that was late; a server that is, is so every time.
    assert min(answered_before_the_line() for _ in range(4)) < 100


def test_flood_of_handshakes_loses_no_plain_client(start_tls, ca):
    server = start_tls({"keepalive": FAST}, cert=pair(ca, "rsa"))
    host, port = server.tls_address
    with Witness(server, count=10) as witness:
        floods = [subprocess.Popen(["nice", "openssl", "s_time", "-connect", f"{host}:{port}",
                                    "-new", "-time", "3"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL) for _ in range(4)]
        stalled = [MemoryTls(server, ca.context()) for _ in range(200)]
        for client in stalled:
            client.sock.sendall(client.first_flight()[:100])
        number = 0
        while any(flood.poll() is None for flood in floods):
            with Client(server) as client:
                assert client.outcome(f"plain-{number}") == 140
            number += 1
        witness.wait_asked(3)
        witness.check()
        for client in stalled:
            client.sock.close()
    assert metrics(server)['cliser_tls_handshakes_total{result="full"}'] > 100


# --- resumption, key updates, renegotiation -----------------------------------------------------


def resumed(server, context, version, cid="web-1"):
    """Two sessions of one client; returns whether the second one was resumed."""
    with TlsClient(server, context).handshake(cid) as client:
        session = client.sock.session
        client.leave()
    server.wait_log(rf" disconnected .*cid={cid}")
    with TlsClient(server, context, session=session).handshake(cid) as client:
        return client.sock.session_reused


@BOTH
def test_ticket_resumes(start_tls, ca, version):
    server = start_tls()
    assert resumed(server, ca.context(version=version), version)
    counts = metrics(server)
    assert counts['cliser_tls_handshakes_total{result="full"}'] == 1
    assert counts['cliser_tls_handshakes_total{result="resumed"}'] == 1


@BOTH
def test_ticket_resumes_with_a_client_certificate_and_proves_what_it_did(start_tls, ca, version):
    server = start_tls(client_ca=ca.cert)
    context = ca.context(pair(ca, "web-1"), version)
    assert resumed(server, context, version)
    with TlsClient(server, context).handshake("web-1") as client:
        session = client.sock.session
        client.leave()
    server.wait_log(r" disconnected .*cid=web-1")
    with TlsClient(server, context, session=session) as client:
        assert client.sock.session_reused
        assert client.outcome("web-2") == 422


@BOTH
def test_ticket_of_before_a_reload_is_no_proof_any_more(start_tls, ca, folder, version):
    server = start_tls(client_ca=ca.cert)
    context = ca.context(pair(ca, "web-1"), version)
    with TlsClient(server, context).handshake("web-1") as client:
        session = client.sock.session
        server.reload()
        client.leave()
    server.wait_log(r" disconnected .*cid=web-1")
    with TlsClient(server, context, session=session).handshake("web-1") as client:
        assert not client.sock.session_reused


def s_client(server, *args):
    host, port = server.tls_address
    return subprocess.Popen(["openssl", "s_client", "-connect", f"{host}:{port}", *args],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def s_client_until(process, text):
    """Reads on until the text has come."""
    said = b""
    end = time.monotonic() + limit(10)
    while text not in said:
        assert time.monotonic() < end, said
        chunk = os.read(process.stdout.fileno(), 65536)
        assert chunk, said
        said += chunk
    return said


def test_renegotiation_is_refused(start_tls):
    server = start_tls()
    process = s_client(server, "-tls1_2")
    s_client_until(process, b"110: ")
    process.stdin.write(b"R\n")
    process.stdin.flush()
    said, _ = process.communicate(timeout=limit(10))
    assert b"no renegotiation" in said


def test_key_update_changes_nothing(start_tls):
    server = start_tls()
    process = s_client(server, "-tls1_3")
    s_client_until(process, b"110: ")
    for command, answer in ((b"K\n", b"KEYUPDATE"), (b"secret\n", b"120: "), (b"k\n", b"KEYUPDATE"),
                            (b"web-1\n", b"140: ")):
        process.stdin.write(command)
        process.stdin.flush()
        s_client_until(process, answer)
    process.kill()
    process.communicate()
    assert end_of(server, "web-1") in ("left", "reset")


@pytest.mark.parametrize("registered", [False, True], ids=["before-140", "after"])
def test_answers_that_nobody_reads_do_not_keep_the_server_busy(start_tls, registered):
    """OpenSSL reads no more while it owes a key update, and the socket stays readable."""
    server = start_tls({"limits": {"handshake_timeout": "10h"},
                        "keepalive": {"interval": "2s", "misses": 255}})
    with LibsslTls(server, rcvbuf=2048, mss=536) as client, Client(server) as other:
        if registered:
            client.send(b"secret\nweb-1\n")
            assert [client.read_line() for _ in range(3)] == [ASK_PASSWORD, ASK_ID, CONNECTED]
        assert client.ask_for_new_keys() > 100
        before = server.cpu_seconds()
        time.sleep(1)
        assert server.cpu_seconds() - before < 0.1
        other.handshake("other")
        # What it owes is sent when there is room, and then all goes on.
        client.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if registered:
            assert client.read_line() == KEEP_ALIVE
        else:
            for line, answer in ((ASK_PASSWORD, b"secret\n"), (ASK_ID, b"web-1\n")):
                assert client.read_line() == line
                client.send(answer)
            assert client.read_line() == CONNECTED


# --- certificates of clients --------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name,cid,code", [
    ("web-1", "web-1", 140), ("web-2", "web-2", 140), ("web-2", "other", 140),
    ("web-1", "web-2", 422), ("web-1", "WEB-1", 422), ("web-1", "web-11", 422),
    ("web-1", "web-", 422), ("web-2", "Test", 422)])
def test_certificate_covers_the_ids_that_are_its_names(start_tls, ca, version, name, cid, code):
    server = start_tls(client_ca=ca.cert)
    with TlsClient(server, ca.context(pair(ca, name), version)) as client:
        assert client.outcome(cid) == code
    if code == 422:
        server.wait_log(r" refused .*reason=not_allowed")
        assert cid not in server.rows()
        assert metrics(server)['cliser_refusals_total{code="422"}'] == 1


def test_password_and_id_are_judged_before_the_name_of_a_certificate(start_tls, ca):
    server = start_tls(client_ca=ca.cert)
    context = ca.context(pair(ca, "web-1"))
    with TlsClient(server, context) as client:
        assert client.outcome("web-2", "wrong") == 410
    with TlsClient(server, context) as client:
        assert client.outcome("a b") == 420


def test_wrong_name_does_not_disturb_who_has_the_id(start_tls, ca):
    server = start_tls({"registry": {"duplicate_id": "takeover"}}, client_ca=ca.cert)
    with TlsClient(server, ca.context(pair(ca, "web-1"))).handshake("web-1") as holder:
        with TlsClient(server, ca.context(pair(ca, "web-2"))) as client:
            assert client.outcome("web-1") == 422
        holder.expect_silence(0.1)


@BOTH
@pytest.mark.parametrize("which", ["none", "expired", "other-ca"])
def test_client_without_a_good_certificate_does_not_get_in(start_tls, ca, folder, version, which):
    server = start_tls({"keepalive": FAST}, client_ca=ca.cert)
    cert = {"none": lambda: None, "expired": lambda: pair(ca, "gone"),
            "other-ca": lambda: Authority(folder, "stranger").issue("web-1", "/CN=web-1", None)}
    with Witness(server) as witness:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with TlsClient(server, ca.context(cert[which](), version)) as client:
                client.recv_line()  # with 1.3, that is where a client hears of it
        server.wait_log(r" refused .*reason=tls")
        with TlsClient(server, ca.context(pair(ca, "web-1"), version)).handshake("web-1"):
            witness.check()


def test_plain_clients_need_no_certificate(start_tls, ca):
    server = start_tls(client_ca=ca.cert)
    with Client(server).handshake("web-1"):
        pass


def test_client_ca_is_reloaded_for_newcomers_only(start_tls, ca, folder):
    server = start_tls()
    with TlsClient(server, ca.context()) as before:
        server.reload({"server": {"tls_client_ca": str(ca.cert)}})
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with TlsClient(server, ca.context()) as client:
                client.recv_line()
        before.handshake("web-7")
        with TlsClient(server, ca.context(pair(ca, "web-1"))).handshake("web-1"):
            pass
        server.reload({"server": {"tls_client_ca": None}})
        with TlsClient(server, ca.context()).handshake("web-8"):
            pass


# --- files --------------------------------------------------------------------------------------


def test_reload_takes_a_new_certificate_and_touches_no_session(start_tls, ca, folder):
    server = start_tls({"keepalive": FAST})
    with TlsClient(server, ca.context()).handshake("web-1") as old:
        first = serial(old)
        place(folder, *pair(ca, "second"))
        assert serial_served(server, ca) == first
        server.reload()
        assert serial_served(server, ca) != first
        assert len(old.answer(time.monotonic() + limit(10), rounds=3)) == 3
        old.leave()


def spoil(how, folder, ca):
    """Makes the files bad in one way; returns which key the error is about, and its words."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if how in ("expired", "future"):
        place(folder, *pair(ca, how))
        return "tls_cert", "expired" if how == "expired" else "not valid before"
    if how == "wrong-key":
        place(folder, pair(ca)[0], pair(ca, "second")[1])
        return "tls_key", "does not belong"
    if how == "wrong-order":
        cert.write_bytes(pair(ca)[0].read_bytes() + pair(ca, "second")[0].read_bytes())
        return "tls_cert", "order"
    if how == "damaged":
        cert.write_bytes(pair(ca)[0].read_bytes() + b"-----BEGIN CERTIFICATE-----\nMII\n")
        return "tls_cert", "damaged"
    if how == "weak":
        openssl("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-days", "9",
                "-keyout", key, "-out", cert)
        key.chmod(0o600)
        return "tls_cert", "key too small"
    if how == "open-key":
        key.chmod(0o644)
        return "tls_key", "chmod 640"
    if how == "passphrase":
        openssl("pkey", "-aes128", "-passout", "pass:x", "-in", pair(ca)[1], "-out", key)
        key.chmod(0o600)
        return "tls_key", "passphrase"
    what, kind = how.split("-")
    path = {"cert": cert, "key": key}[what]
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(0o700)
    elif kind == "empty":
        path.touch(0o600)
    elif kind == "loop":
        path.symlink_to(path.name)
    return f"tls_{what}", {"missing": "No such file", "fifo": "is no file", "loop": "symbolic",
                           "directory": "is no file", "empty": "should begin with"}[kind]


WAYS = ["expired", "future", "wrong-key", "wrong-order", "damaged", "weak", "open-key",
        "passphrase", "cert-missing", "cert-empty", "cert-fifo", "cert-directory", "cert-loop",
        "key-missing", "key-empty", "key-fifo", "key-directory"]


@pytest.mark.parametrize("how", WAYS)
def test_reload_of_a_bad_pair_keeps_everything_as_it_was(start_tls, ca, folder, how):
    server = start_tls({"keepalive": FAST})
    before = serial_served(server, ca)
    with Witness(server) as witness:
        key, words = spoil(how, folder, ca)
        server.reload({"auth": {"password": "next"}}, event="reload_failed")
        server.wait_log(rf"cliser\.ini:\d+: {key}: .*{words}")
        assert serial_served(server, ca) == before
        with TlsClient(server, ca.context()) as client:
            assert client.outcome("web-1", "secret") == 140
        told = subprocess.run([BIN / "cliserctl", "--socket", server.folder / "cliser.sock",
                               "reload"], capture_output=True, text=True, timeout=limit(10))
        assert told.returncode == 1 and words in told.stderr
        witness.check(max_gap=1.0)
    line = server.ini.read_text().splitlines().index(f"{key} = {key[4:]}.pem") + 1
    assert server.find_log(rf"cliser\.ini:{line}: {key}")


@pytest.mark.parametrize("how", WAYS)
def test_start_with_a_bad_pair_says_what_would_be_right(ca, folder, how):
    place(folder, *pair(ca))
    key, words = spoil(how, folder, ca)
    ini = ("[server]\nlisten = 127.0.0.1:0\ntls_listen = 127.0.0.1:0\ntls_cert = cert.pem\n"
           "tls_key = key.pem\n[auth]\npassword = x\n")
    result = run("-t", "test.ini", folder=folder, ini=ini)
    line = {"tls_cert": 4, "tls_key": 5}[key]
    assert result.returncode == 2
    assert re.search(rf"^cliserd: test\.ini:{line}: {key}: .*{words}", result.stderr)


@pytest.mark.parametrize("keys,line,words", [
    ("tls_listen = 127.0.0.1:0", 3, "needs tls_cert and tls_key"),
    ("tls_listen = 127.0.0.1:0\ntls_cert = cert.pem", 3, "needs tls_cert and tls_key"),
    ("tls_cert = cert.pem", 3, "tls_listen, and there are none"),
    ("tls_key = key.pem", 3, "tls_listen, and there are none"),
    ("tls_client_ca = cert.pem", 3, "tls_listen, and there are none"),
    ("tls_listen = unix:/x\ntls_cert = cert.pem\ntls_key = key.pem", 3, "belongs to listen"),
    ("tls_listen = localhost\ntls_cert = cert.pem\ntls_key = key.pem", 3,
     r'tls_listen: "localhost" should be an address such as 127\.0\.0\.1:1112 or \[::1\]:1112$'),
    ("tls_listen = 127.0.0.1:0\ntls_cert = cert.pem\ntls_key = key.pem\ntls_client_ca = x", 6,
     "tls_client_ca: cannot read x"),
    ("tls_listen = 127.0.0.1:0\ntls_cert = cert.pem\ntls_key = key.pem\ntls_client_ca = key.pem",
     6, "tls_client_ca: key.pem has no certificate"),
    ("tls_listen = 0.0.0.0:0\ntls_cert = cert.pem\ntls_key = key.pem", 7, "shipped"),
], ids=["no-pair", "no-key", "lone-cert", "lone-key", "lone-ca", "unix", "name", "no-ca",
        "ca-is-none", "shipped-password"])
def test_wrong_keys_say_what_would_be_right(ca, folder, keys, line, words):
    place(folder, *pair(ca))
    ini = f"[server]\nlisten = 127.0.0.1:0\n{keys}\n[auth]\npassword = cliser\n"
    result = run("-t", "test.ini", folder=folder, ini=ini)
    assert result.returncode == 2
    assert re.search(rf"^cliserd: test\.ini:{line}: .*{words}", result.stderr, re.M), result.stderr


def test_an_address_speaks_tls_or_does_not(ca, folder):
    place(folder, *pair(ca))
    ini = ("[server]\nlisten = 127.0.0.1:1, 127.0.0.1:2\nreuse_port = yes\n"
           "tls_listen = 127.0.0.1:3, 127.0.0.1:2\ntls_cert = cert.pem\ntls_key = key.pem\n"
           "[auth]\npassword = x\n")
    result = run("-t", "test.ini", folder=folder, ini=ini)
    assert result.returncode == 2
    assert result.stderr == ("cliserd: test.ini:4: tls_listen: 127.0.0.1:2 stands in listen as "
                             "well; TLS needs a port of its own\n")


def test_addresses_of_tls_need_a_restart(start_tls, ca):
    server = start_tls()
    before = serial_served(server, ca)
    mark = server.mark_log()
    server.reload({"server": {"tls_listen": "127.0.0.1:1"}})
    server.wait_log(r" warn restart_needed .*key=tls_listen", start=mark)
    # Taken out of the file altogether, the ones that are there go on with what they have.
    server.reload({"server": {"tls_listen": None, "tls_cert": None, "tls_key": None}})
    assert serial_served(server, ca) == before
    with TlsClient(server, ca.context()).handshake("web-1"):
        pass


def test_certificate_is_swapped_by_symlinks_under_load(start_tls, ca, folder):
    server = start_tls({"keepalive": FAST, "log": {"level": "warn"}})
    for name in ("server", "second"):
        home = folder / f"live-{name}"
        home.mkdir()
        place(home, *pair(ca, name))
    for name in ("cert.pem", "key.pem"):
        (folder / name).unlink()
        (folder / name).symlink_to(f"live/{name}")
    (folder / "live").symlink_to("live-server")
    stop = threading.Event()
    failures, seen = [], set()

    def come_and_go(number):
        context = ca.context()
        while not stop.is_set():
            try:
                with TlsClient(server, context) as client:
                    seen.add(serial(client))
                    assert client.outcome(f"load-{number}") in (140, 421)
            except Exception as failure:
                failures.append(failure)
                return

    threads = [threading.Thread(target=come_and_go, args=[n]) for n in range(4)]
    with Witness(server) as witness, TlsClient(server, ca.context()).handshake("stays") as stays:
        for thread in threads:
            thread.start()
        for round_ in range(20):
            swapped = folder / "live.new"
            swapped.symlink_to(("live-second", "live-server")[round_ % 2])
            swapped.rename(folder / "live")
            server.signal(signal.SIGHUP)
            stays.answer(time.monotonic() + 0.1)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(seen) == 2
        witness.check(max_gap=1.0)
        stays.send_line("100")
    assert "reload_failed" not in server.log_text()


def test_certificate_that_ends_soon_is_warned_of(start_tls, ca, folder):
    server = start_tls(cert=ca.issue("soon", days=10))
    server.wait_log(r" warn certificate_expires days=(9|10)\b")
    assert 9 * 86400 < metrics(server)["cliser_tls_certificate_expiry_timestamp_seconds"] \
        - time.time() < 10 * 86400 + 60
    mark = server.mark_log()
    place(folder, *pair(ca))
    server.reload()
    assert not server.find_log("certificate_expires", start=mark)
    place(folder, *pair(ca, "soon"))
    server.reload()
    server.wait_log(r" warn certificate_expires days=(9|10)\b", start=mark)


def test_server_without_tls_has_no_certificate_to_expire(server):
    assert "cliser_tls_certificate_expiry_timestamp_seconds" not in metrics(server)


@BOTH
def test_keys_that_are_dear_to_agree_on_are_not(start_tls, ca, version):
    """A peer must not choose what a handshake costs the server."""
    server = start_tls()
    context = ca.context(version=version)
    context.set_ecdh_curve("prime256v1")
    with TlsClient(server, context) as client:
        client.expect(ASK_PASSWORD)
    context.set_ecdh_curve("secp384r1")
    with pytest.raises(ssl.SSLError):
        TlsClient(server, context)


def test_client_certificate_may_have_a_key_that_no_keys_are_agreed_on_by(start_tls, ca):
    server = start_tls(client_ca=str(ca.cert))
    certificate = ca.issue("web-384", "/CN=web-384", None, key="P-384")
    TlsClient(server, ca.context(certificate, V13)).handshake("web-384").close()


def test_handshakes_under_way_have_a_limit_of_their_own(start_tls, ca):
    """They are dear: each takes as much memory as a hundred sessions."""
    server = start_tls({"limits": {"max_tls_pending": 1, "handshake_timeout": "10h"}})
    with Client(server.tls_address), Client(server) as plain:
        for _ in range(5):
            with Client(server.tls_address) as client:
                client.expect_close()
        server.wait_log(r" refused reason=full")
        plain.handshake("plain")
    # The place of one that is gone is free again, and so is that of one that is done.
    clients = [wait_until(lambda: connected_over_tls(server, ca)) for _ in range(3)]
    for client in clients:
        client.expect(ASK_PASSWORD)
        client.close()


def connected_over_tls(server, ca):
    """A client with its TLS handshake done, or None if there was no room for one."""
    with contextlib.suppress(OSError):
        return TlsClient(server, ca.context())


def test_full_server_closes_on_tls_without_a_word(start_tls, ca):
    server = start_tls({"limits": {"max_pending": 1}})
    with Client(server) as waiting:
        waiting.expect(ASK_PASSWORD)
        with Client(server.tls_address) as client:
            assert client.sock.recv(100) == b""
    server.wait_log(r" refused .*reason=full")
    holds_for(lambda: server.proc.poll() is None, 0.05)
