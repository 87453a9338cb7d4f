"""Rows B: clients that say the wrong things, at the wrong time, too slowly, too fast."""

import itertools
import math
import random
import statistics
import time

import pytest

import harness
from harness import (ASK_ID, ASK_PASSWORD, CONNECTED, KEEP_ALIVE, PASSWORD, Client, Swarm, limit,
                     wait_until)
from oracle import FULL, fault

MAX_LINE = 256  # with its end
QUICK = {"limits": {"handshake_timeout": "1s"}}


@fault("B01", "clients that say nothing", rounds=50, full=2000)
def test_silent_clients_are_closed_at_the_deadline(case):
    server = case.start(QUICK)
    with Swarm(server) as swarm:
        swarm.add_all([None] * case.rounds)
        swarm.settle(5)
        for member in swarm.members:
            assert member.code == 408
            assert 0.95 <= member.ended - member.opened <= limit(2)


@fault("B02", "a byte now and then, until the deadline", rounds=20, full=200)
def test_dripping_clients_are_closed_at_the_same_deadline(case):
    server = case.start(QUICK)
    with Swarm(server) as swarm:
        members = swarm.add_all([None] * case.rounds)
        began = time.monotonic()
        while not all(member.ended for member in members):
            assert time.monotonic() - began < limit(3)
            for member in members:
                if member.state == "open":
                    swarm._send(member, b"x")
            swarm.pump(0.1, scaled=False)
        for member in members:
            assert member.code == 408 and member.ended - member.opened <= limit(2)


@fault("B03", "whole sessions byte by byte", rounds=20, full=500)
def test_byte_by_byte_sessions_are_as_good_as_others(case):
    server = case.start()
    for number in range(case.rounds):
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            for byte in f"{PASSWORD}\r\n".encode():
                client.send(bytes([byte]))
            client.expect(ASK_ID)
            for byte in f"slow-{number}\n".encode():
                client.send(bytes([byte]))
            client.expect(CONNECTED)


@fault("B04", "a megabyte without an end of line, before and after 140", rounds=4, full=100)
def test_endless_lines_end_the_session_and_cost_no_memory(case):
    server = case.start()
    before = server.rss_kib()
    for number in range(case.rounds):
        with Client(server) as client:
            if number % 2:
                client.handshake(f"long-{number}")
            else:
                client.expect(ASK_PASSWORD)
            try:
                client.send(b"x" * (1 << 20))
                client.expect_refusal(400, after_keep_alives=True)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has closed while we were writing
        if not harness.sanitized():
            assert server.rss_kib() - before < 4096


@fault("B05", "lines around the limit, cut at every offset", rounds=1, full=2)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_the_limit_of_a_line_is_exact_however_it_is_cut(case, end):
    server = case.start()
    for size, code in ((MAX_LINE - 1, 410), (MAX_LINE, 410), (MAX_LINE + 1, 400)):
        line = b"p" * (size - len(end)) + end
        offsets = range(1, size) if FULL else (1, 2, size // 2, size - 2, size - 1)
        for offset in offsets:
            with Client(server) as client:
                client.expect(ASK_PASSWORD)
                client.send(line[:offset])
                client.send(line[offset:])
                client.expect_refusal(code)


HOSTILE = [b"a\0b", b"\0", b"a\rb", bytes(range(0x80, 0xa0)), b"\xc0\xaf", b"\xff" * 20,
           b"\x1b[2J", "\u202egnp.exe".encode(), b'"><script>', b"a\\nb", b"{}", b"%s%n", b"' or 1"]


@fault("B06", "bytes that no password and no ID has", rounds=1, full=20)
def test_hostile_bytes_are_refused_and_logged_escaped(case):
    server = case.start({"log": {"level": "debug"}})
    case.allow("debug writes each of them down", log_lines=4000)
    for _ in range(case.rounds):
        for hostile in HOSTILE:
            with Client(server) as client:
                client.expect(ASK_PASSWORD)
                client.send(hostile + b"\n")
                assert client.outcome("x") in (400, 410)
    assert all(0x20 <= byte < 0x7f or byte == 0x0a for byte in server.raw_log)


@fault("B07", "IDs made for terminals, pages and shells", rounds=1, full=20)
def test_hostile_ids_are_refused_and_reach_no_sink(case):
    server = case.start({"log": {"level": "debug"}})
    case.allow("debug writes each of them down", log_lines=4000)
    with case.control.events() as events:
        for _ in range(case.rounds):
            for hostile in HOSTILE:
                with Client(server) as client:
                    client.authenticate()
                    client.send(hostile + b"\n")
                    line = client.recv_line()
                    assert line in (harness.REFUSALS[400], harness.REFUSALS[420])
                assert not events.wait("refused").data.get("cid")
    assert all(0x20 <= byte < 0x7f or byte == 0x0a for byte in server.raw_log)
    text = case.control.request("GET", "/metrics").body + \
        case.control.request("GET", "/v1/clients").body
    for hostile in HOSTILE[2:]:
        assert hostile not in text


@fault("B08", "everything in one segment before any question", rounds=20, full=500)
def test_answers_before_the_questions_are_taken_in_order(case):
    server = case.start()
    for number in range(case.rounds):
        with Client(server) as client:
            client.send(f"{PASSWORD}\nearly-{number}\n100\n".encode())
            for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
                client.expect(line)


@fault("B09", "the ID where the password belongs", rounds=5, full=200)
def test_no_state_can_be_skipped(case):
    server = case.start()
    for number in range(case.rounds):
        with Client(server) as client:
            client.send(f"skip-{number}\n{PASSWORD}\n".encode())
            client.expect(ASK_PASSWORD)
            client.expect_refusal(410)


CODES = ["100", "110", "120", "130", "140", "400", "408", "410", "420", "421", "422", "429", "430",
         "431", "450", "451", "460", "999", ""]


@fault("B10", "every code of the protocol in every state", rounds=1, full=5)
def test_every_code_in_every_state_has_its_outcome(case):
    server = case.start()
    for _ in range(case.rounds):
        for code in CODES:
            with Client(server) as client:  # as a password
                client.expect(ASK_PASSWORD)
                client.send_line(code)
                client.expect_refusal(410 if code else 400)
            with Client(server) as client:  # as an ID, which digits may well be
                client.authenticate()
                client.send_line(code)
                if code:
                    client.expect(CONNECTED)
                else:
                    client.expect_refusal(400)
            with Client(server) as client:  # as an answer: unasked ones are counted
                client.handshake(f"code-{code or 'none'}")
                for _ in range(9):
                    client.send_line(code)
                if code == "100":
                    client.expect(KEEP_ALIVE, 3)
                else:
                    client.expect_refusal(400, after_keep_alives=True)


WRONG = {
    "near": PASSWORD[:-1] + "x",
    "far": "x" + PASSWORD[1:],
    "short": PASSWORD[:-1],
    "long": PASSWORD + "x" * 100,
}


def welch(some, others):
    """Welch's t: how far the means are apart, in standard errors of their difference."""
    error = math.sqrt(statistics.variance(some) / len(some) +
                      statistics.variance(others) / len(others))
    return (statistics.fmean(some) - statistics.fmean(others)) / error


def time_answers(server, rounds):
    """How long the answer to each kind of wrong password took, so many times, in random order."""
    took = {kind: [] for kind in WRONG}
    for kind in random.sample(list(WRONG) * rounds, len(WRONG) * rounds):
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            line = WRONG[kind].encode() + b"\n"
            began = time.perf_counter_ns()
            client.sock.send(line)
            client.sock.recv(100)
            took[kind].append(time.perf_counter_ns() - began)
    return took


@fault("B11", "wrong passwords that are nearly right, and others, ten thousand of each", rounds=0,
       full=10000)
def test_time_of_an_answer_says_nothing_about_the_password(case):
    server = case.start(witnesses=10)
    case.allow("each is refused", log_lines=10**6)
    # What has nothing to do with us makes some of them late: the slowest tenth of all is left out.
    for attempt in range(2):
        took = time_answers(server, case.rounds)
        most = sorted(sum(took.values(), []))[len(WRONG) * case.rounds * 9 // 10]
        kept = {kind: [one for one in times if one < most] for kind, times in took.items()}
        found = {f"{one}/{other}": welch(kept[one], kept[other])
                 for one, other in itertools.combinations(WRONG, 2)}
        worst = max(found, key=lambda pair: abs(found[pair]))
        case.note(f"median {statistics.median(took['near']) / 1000:.1f} us; "
                  f"the largest t is {found[worst]:+.1f} ({worst})")
        if abs(found[worst]) < 4.5:
            return
    pytest.fail(f"t of {worst} is {found[worst]:+.1f}, and was too large before")


@fault("B12", "nothing where a password or an ID belongs", rounds=3, full=100)
def test_empty_answers_are_refused(case):
    server = case.start()
    for _ in range(case.rounds):
        for text, code in (("", 400), (" ", 410), (" " + PASSWORD, 410), (PASSWORD + " ", 410)):
            with Client(server) as client:
                client.expect(ASK_PASSWORD)
                client.send_line(text)
                client.expect_refusal(code)
        for text, code in (("", 400), (" ", 420), ("a b", 420), (" a", 420)):
            with Client(server) as client:
                client.authenticate()
                client.send_line(text)
                client.expect_refusal(code)


OTHERS = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
}


@fault("B13", "HTTP, TLS and SSH on the clients' port", rounds=3, full=200)
def test_other_protocols_are_closed_at_once(case):
    server = case.start()
    for _ in range(case.rounds):
        for hello in OTHERS.values():
            with Client(server) as client:
                began = time.monotonic()
                client.send(hello)
                assert client.outcome("x") in (400, 410)
                assert time.monotonic() - began < limit(1)


@fault("B14", "a client that closes its sending side", rounds=10, full=500)
def test_half_closed_clients_are_gone_at_once(case):
    server = case.start()
    for number in range(case.rounds):
        with Client(server) as client:
            client.handshake(f"half-{number}")
            client.finish_writing()
            client.expect_close()


@fault("B15", "a flood of answers that nobody asked for", rounds=3, full=30)
def test_floods_end_the_flooder_and_nobody_else(case):
    server = case.start()
    for number in range(case.rounds):
        with Client(server) as client:
            client.handshake(f"flood-{number}")
            began = time.monotonic()
            # What still comes when the session is over is read and forgotten, for two seconds.
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                while time.monotonic() - began < limit(5):
                    client.send(b"x\n" * 8192)
    # Answers as such may come as fast as they want: they are read, and nobody waits for them.
    with Client(server) as client:
        client.handshake("chatty")
        end = time.monotonic() + (10 if FULL else 2)
        while time.monotonic() < end:
            client.send(b"100\n" * 4096)


@fault("B16", "a hundred clients with one ID at once", rounds=5, full=100)
def test_one_of_many_with_the_same_id_gets_it(case):
    server = case.start({"registry": {"duplicate_id": "reject"}})
    for number in range(case.rounds):
        with Swarm(server, pipelined=True) as swarm:
            swarm.add_all([f"same-{number}"] * 100)
            swarm.settle()
            assert len(swarm.connected()) == 1
            assert len(swarm.refused(421)) == 99
            record = case.control.client(f"same-{number}")
            assert record["cstatus"]
            assert record["cport"] == swarm.connected()[0].sock.getsockname()[1]


@fault("B17", "a second client while the first one is dead", rounds=2, full=20)
def test_a_dead_holder_gives_way_to_a_newcomer(case):
    server = case.start({"keepalive": {"misses": "30"}})
    for number in range(case.rounds):
        holder = Client(server).handshake(f"dead-{number}")
        began = time.monotonic()
        with Client(server) as newcomer:
            newcomer.handshake(f"dead-{number}", timeout=6)
            assert time.monotonic() - began < limit(4)
            assert case.control.client(f"dead-{number}")["cport"] == newcomer.port
        holder.close()


@fault("B18", "one ID that comes and goes all the time", rounds=200, full=5000)
def test_the_last_state_of_a_flapping_client_is_the_true_one(case):
    server = case.start({"registry": {"duplicate_id": "takeover"}})
    case.allow("each coming and going is a line", log_lines=3 * case.rounds + 100)
    client = None
    for _ in range(case.rounds):
        before, client = client, Client(server).handshake("flapping")
        if before:
            (before.rst if random.random() < 0.5 else before.close)()
    record = case.control.client("flapping")
    assert record["cstatus"] and record["cport"] == client.port
    client.close()
    wait_until(lambda: not case.control.client("flapping")["cstatus"], 5, "its leaving")
