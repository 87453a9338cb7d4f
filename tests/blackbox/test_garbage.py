"""Resets, garbage and peers that do not read, at every step; innocent clients must not notice."""

import contextlib
import random
import select
import time

import pytest

from harness import (ASK_ID, ASK_PASSWORD, KEEP_ALIVE, Client, Swarm, Witness, connected_ids, limit,
                     sanitized, wait_until)


@pytest.fixture
def watched(start_server):
    """A server with witnesses. Afterwards: nobody of them lost, all descriptors back, nobody else
    connected."""
    server = start_server({"keepalive": {"interval": "100ms", "require_reply": "yes"},
                           "registry": {"duplicate_id": "takeover"}})
    with Witness(server) as witness:
        server.witness = witness
        baseline = server.fds()
        yield server
        if server.proc.poll() is None:
            witness.wait_asked(2)
            witness.check(max_gap=1.0)
            wait_until(lambda: server.fds() <= baseline, seconds=10, what="descriptors back")
            wait_until(lambda: connected_ids(server.db) == {f"witness-{n}" for n in range(5)},
                       what="only the witnesses connected")


def to_connect(client):
    pass


def to_110(client):
    client.expect(ASK_PASSWORD)


def to_half_a_password(client):
    client.expect(ASK_PASSWORD)
    client.send(b"secr")


def to_120(client):
    client.authenticate()


def to_half_an_id(client):
    client.authenticate()
    client.send(b"web-")


def to_id_sent(client):
    client.authenticate()
    client.send_line("web-1")


def to_everything_sent(client):
    client.send(b"secret\nweb-1\n")


def to_140(client):
    client.handshake("web-1")


def to_answered(client):
    client.handshake("web-1")
    client.expect(KEEP_ALIVE)
    client.send_line("100")


STEPS = [to_connect, to_110, to_half_a_password, to_120, to_half_an_id, to_id_sent,
         to_everything_sent, to_140]
EACH_STEP = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)


@EACH_STEP
def test_reset_at_each_step_leaves_nothing_behind(watched, step):
    for _ in range(40):
        client = Client(watched)
        step(client)
        client.rst()


@EACH_STEP
def test_close_at_each_step_leaves_nothing_behind(watched, step):
    for _ in range(40):
        client = Client(watched)
        step(client)
        client.close()


def test_reset_between_keep_alives_leaves_nothing_behind(watched):
    for _ in range(5):
        client = Client(watched)
        to_answered(client)
        client.rst()


@EACH_STEP
def test_garbage_at_each_step_ends_with_a_refusal_or_silence(watched, step):
    dice = random.Random(step.__name__)
    for round_ in range(30):
        with Client(watched) as client:
            step(client)
            # Sometimes text with line ends in it, sometimes anything.
            alphabet = b"\n\r100 3abc\0" if round_ % 2 else bytes(range(256))
            client.send(bytes(dice.choices(alphabet, k=dice.choice((1, 7, 300, 5000)))))
            end = time.monotonic() + 0.05
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while client.recv_line(max(0, end - time.monotonic()), scaled=False):
                    pass
            if round_ % 3 == 0:
                client.rst()


def test_every_byte_flipped_in_a_good_session_harms_nobody(watched):
    good = b"secret\nweb-1\n100\n100\n"
    for position in range(len(good)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            data = bytearray(good)
            data[position] ^= flip
            with Client(watched) as client:
                client.send(bytes(data))
                client.expect(ASK_PASSWORD)
                client.finish_writing()
                while client.recv_line():
                    pass


def test_thousands_of_quick_resets_leave_nothing_behind(watched):
    end = time.monotonic() + limit(10)
    for _ in range(3000):
        Client(watched).rst()
        if time.monotonic() > end:
            break


def test_crowd_that_vanishes_at_once_leaves_nothing_behind(watched):
    for rst in (True, False):
        with Swarm(watched, pipelined=True) as swarm:
            swarm.add_all(f"web-{n}" for n in range(500))
            swarm.settle()
            assert swarm.count("connected") == 500
            for member in swarm.members:
                swarm.drop(member, rst=rst)


def test_sockets_stuck_in_every_step_end_with_the_server(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    clients = []
    for step in STEPS:
        clients.append(Client(server))
        if step in (to_id_sent, to_everything_sent, to_140):
            clients[-1].send(b"secret\nstuck-%d\n" % len(clients))
        else:
            step(clients[-1])
    assert server.stop() == 0
    for client in clients:
        client.close()


def test_peer_that_does_not_read_is_dropped_as_slow_and_nobody_waits_for_it(start_server, folder):
    server = start_server({"server": {"listen": f"127.0.0.1:0, unix:{folder}/wire.sock"},
                           "keepalive": {"interval": "100ms", "misses": 255, "require_reply": "no"},
                           "log": {"level": "debug"}})
    deaf = Client(folder / "wire.sock").handshake("deaf")
    hangup = select.poll()
    hangup.register(deaf.sock, 0)
    with Witness(server) as witness:
        before = server.rss_kib()
        probes = 0
        end = time.monotonic() + limit(30)
        # Each newcomer that claims its ID and goes makes the server ask it at once: some thousand
        # lines of 17 bytes fill what the kernel holds for it, and then the 64 KiB.
        while not hangup.poll(0):
            assert time.monotonic() < end, f"not dropped after {probes} probes"
            with Client(folder / "wire.sock") as newcomer:
                newcomer.send(b"secret\ndeaf\n")
                newcomer.expect(ASK_PASSWORD)
                newcomer.expect(ASK_ID)
            probes += 1
        server.wait_log(r" disconnected .*cid=deaf .*reason=slow")
        assert probes >= 65536 // 17, "dropped too early"
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
        if not sanitized():
            assert server.rss_kib() - before < 4096
    deaf.close()


def test_peer_that_does_not_read_its_refusal_is_closed_all_the_same(start_server, folder):
    server = start_server({"server": {"listen": f"unix:{folder}/wire.sock"}})
    baseline = server.fds()
    clients = [Client(folder / "wire.sock") for _ in range(10)]
    for client in clients:
        client.send(b"wrong\n")
    wait_until(lambda: server.fds() <= baseline, seconds=5)
    for client in clients:
        client.close()
