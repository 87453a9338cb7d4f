"""Every way a client is refused or dropped: its last line, or none, and that it can be read."""

import contextlib
import resource
import signal
import socket
import threading
import time

import pytest

from harness import ASK_PASSWORD, REFUSALS, Client, limit, wait_until

QUIET = {"interval": "10h"}


def provoke_400_too_long(server):
    client = Client(server)
    client.expect(ASK_PASSWORD)
    client.send(b"x" * 257)
    return client


def provoke_400_nul(server):
    client = Client(server)
    client.expect(ASK_PASSWORD)
    client.send(b"\0\n")
    return client


def provoke_400_empty(server):
    client = Client(server)
    client.expect(ASK_PASSWORD)
    client.send(b"\n")
    return client


def provoke_400_unasked(server):
    client = Client(server).handshake("web-1")
    client.send(b"hello\n" * 9)
    return client


def provoke_408_handshake(server):
    client = Client(server)
    client.expect(ASK_PASSWORD)
    return client


def provoke_408_keep_alive(server):
    return Client(server).handshake("web-1")


def provoke_410(server):
    client = Client(server)
    client.expect(ASK_PASSWORD)
    client.send_line("wrong")
    return client


def provoke_420(server):
    client = Client(server)
    client.authenticate()
    client.send_line("not an id")
    return client


def provoke_421(server):
    server.holder = Client(server).handshake("web-1")
    client = Client(server)
    client.authenticate()
    client.send_line("web-1")
    return client


def provoke_431(server):
    client = Client(server).handshake("web-1")
    server.newcomer = Client(server).handshake("web-1")
    return client


def provoke_450(server):
    server.others = [Client(server).handshake("web-1")]
    client = Client(server)
    # At the door or at the desk: the protocol leaves open how far a client gets without room.
    with contextlib.suppress(OSError):
        client.send(b"secret\nweb-2\n")
    return client


def provoke_451(server):
    # Nothing can be written any more, as on a full disk.
    old = server.set_limit(resource.RLIMIT_FSIZE, 1)
    client = Client(server)
    client.authenticate()
    client.send_line("web-1")
    client.sock.recv(1, socket.MSG_PEEK)
    server.set_limit(resource.RLIMIT_FSIZE, old)
    return client


def provoke_460(server):
    client = Client(server).handshake("web-1")
    server.signal(signal.SIGQUIT)
    return client


CASES = {
    "400-too-long": (400, provoke_400_too_long, {}),
    "400-nul": (400, provoke_400_nul, {}),
    "400-empty": (400, provoke_400_empty, {}),
    "400-unasked": (400, provoke_400_unasked, {"keepalive": QUIET}),
    "408-handshake": (408, provoke_408_handshake, {"limits": {"handshake_timeout": "200ms"}}),
    "408-keep-alive": (408, provoke_408_keep_alive, {
        "keepalive": {"interval": "100ms", "misses": 2, "require_reply": "yes"}}),
    "410": (410, provoke_410, {}),
    "420": (420, provoke_420, {}),
    "421": (421, provoke_421, {"registry": {"duplicate_id": "reject"}, "keepalive": QUIET}),
    "431": (431, provoke_431, {"registry": {"duplicate_id": "takeover"}, "keepalive": QUIET}),
    "450": (450, provoke_450, {"server": {"max_clients": 1}, "keepalive": QUIET}),
    "451": (451, provoke_451, {}),
    "460": (460, provoke_460, {"server": {"drain": "200ms"}, "keepalive": QUIET}),
}
EACH = pytest.mark.parametrize("code,provoke,config", CASES.values(), ids=CASES.keys())
PROMPTS = (b"110: qual a senha\r\n", b"120: qual o ID\r\n", b"100: keep alive\r\n")


def last_words(client):
    """Everything the server still sends, without prompts and keep-alives, up to the orderly end."""
    words = []
    end = time.monotonic() + limit(10)
    while line := client.recv_line():
        assert time.monotonic() < end, "the connection does not end"
        if line not in PROMPTS:
            words.append(line)
    return words


@EACH
def test_refused_client_reads_the_exact_line_and_then_the_end(start_server, code, provoke, config):
    server = start_server(config)
    with provoke(server) as client:
        assert last_words(client) == [REFUSALS[code]]
    if code == 460:
        assert server.wait_exit() == 0


@EACH
def test_refused_client_reads_nothing_without_explanations(start_server, code, provoke, config):
    server = start_server({**config, "server": {**config.get("server", {}),
                                                "explain_refusals": "no"}})
    with provoke(server) as client:
        # What the client sent behind its mistake is not waited for here, so a reset is all right.
        with contextlib.suppress(ConnectionResetError):
            assert last_words(client) == []
    if code == 460:
        assert server.wait_exit() == 0


# The server ends its own side, and reads and forgets for a while what the client still sends.
# Closing at once would reset the connection, and the reset takes the last line away from clients of
# some systems.
@pytest.mark.parametrize("connected", [False, True], ids=["handshake", "connected"])
def test_refusal_is_readable_while_the_client_keeps_sending(start_server, connected):
    server = start_server({"keepalive": QUIET})
    for _ in range(5):
        with Client(server) as client:
            if connected:
                client.handshake("web-1")
            else:
                client.expect(ASK_PASSWORD)
            failures = []

            def send_a_megabyte(client=client, failures=failures):
                try:
                    for _ in range(64):
                        client.send(b"x" * 16384)
                except OSError as failure:
                    failures.append(failure)

            sender = threading.Thread(target=send_a_megabyte)
            sender.start()
            client.expect_refusal(400)
            sender.join()
            assert not failures
        wait_until(lambda: not connected or server.rows()["web-1"]["cstatus"] == 0)


def test_refusal_is_readable_by_a_client_that_first_sends_everything(server):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send(b"wrong\n")
        for _ in range(20):
            client.send(b"y" * 10000)
            time.sleep(0.01)
        client.expect_refusal(410)


def test_refused_client_that_never_closes_is_closed_by_the_server(server):
    baseline = server.fds()
    clients = [Client(server) for _ in range(20)]
    for client in clients:
        client.expect(ASK_PASSWORD)
        client.send_line("wrong")
        assert client.recv_line() == REFUSALS[410]
    start = time.monotonic()
    wait_until(lambda: server.fds() <= baseline, seconds=5, what="refused connections closed")
    assert time.monotonic() - start <= 2 + limit(1)
    for client in clients:
        client.close()


def test_refused_client_that_keeps_sending_is_closed_by_the_server_all_the_same(server):
    baseline = server.fds()
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send_line("wrong")
        end = time.monotonic() + limit(5)
        with pytest.raises(OSError):
            while time.monotonic() < end:
                client.send(b"z")
                time.sleep(0.01)
    wait_until(lambda: server.fds() <= baseline)


def test_refused_client_may_come_back_at_once(server):
    for _ in range(20):
        with Client(server) as client:
            assert client.outcome("web-1", "wrong") == 410
    with Client(server) as client:
        client.handshake("web-1")
