"""When clients are asked whether they are there, what silence costs, and what a stall must not."""

import signal
import socket
import statistics
import subprocess
import time

import pytest

from harness import (ASK_PASSWORD, KEEP_ALIVE, REFUSALS, Client, SCALE, Swarm, Witness,
                     in_namespace_of, limit, needs_network, server_side_of, wait_until)

TCP_USER_TIMEOUT = 18


def keepalive(interval, misses=3, require_reply="auto"):
    return {"keepalive": {"interval": interval, "misses": misses, "require_reply": require_reply}}


def ended_row(server, cid):
    return wait_until(lambda: (row := server.rows()[cid])["cstatus"] == 0 and row,
                      what=f"{cid} disconnected")


def test_first_keep_alives_of_a_crowd_are_spread_over_the_interval(start_server):
    server = start_server(keepalive("1s"))
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"web-{n}" for n in range(100))
        swarm.settle()
        swarm.pump(5, lambda: all(member.keep_alives() for member in swarm.members))
        waits = [member.keep_alives()[0] - member.was_connected for member in swarm.members]
    assert max(waits) <= 1.0 + 0.3 * SCALE
    # 25 are expected in each quarter; fewer than 7 happens to one fair run in millions.
    for quarter in range(4):
        inside = sum(quarter / 4 <= wait < (quarter + 1) / 4 for wait in waits)
        assert inside >= 7, f"{inside} of 100 were first asked in quarter {quarter + 1}"


def test_every_client_is_asked_once_an_interval(start_server):
    server = start_server(keepalive("200ms"))
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"web-{n}" for n in range(20))
        swarm.settle()
        start = time.monotonic()
        swarm.pump(2.0, scaled=False)
        elapsed = time.monotonic() - start
        gaps = []
        for member in swarm.members:
            times = member.keep_alives()
            assert abs(len(times) - elapsed / 0.2) <= 2, f"asked {len(times)} times"
            gaps += [later - earlier for earlier, later in zip(times, times[1:])]
    assert abs(statistics.median(gaps) - 0.2) < 0.02
    assert max(gaps) < 0.2 + 0.2 * SCALE


def test_phase_of_a_client_stays_its_own(start_server):
    server = start_server(keepalive("300ms"))
    with Client(server).handshake("web-1") as client:
        times = client.answer(time.monotonic() + limit(10), rounds=8)
    drift = (times[-1] - times[0]) - 7 * 0.3
    assert abs(drift) < 0.1 * SCALE, f"seven intervals took {drift:+.3f} s more than they should"


@pytest.mark.parametrize("misses", [1, 2, 4])
def test_silent_client_gets_so_many_keep_alives_and_then_408(start_server, misses):
    server = start_server(keepalive("100ms", misses, "yes"))
    with Client(server).handshake("web-1") as client:
        asked = []
        while (line := client.recv_line()) == KEEP_ALIVE and len(asked) <= misses:
            asked.append(time.monotonic())
        assert line == REFUSALS[408]
        waited = time.monotonic() - asked[0]
        client.expect_close()
    assert len(asked) == misses
    assert misses * 0.1 - 0.03 <= waited <= misses * 0.1 + 0.3 * SCALE
    assert ended_row(server, "web-1")["reason"] == "timed_out"


# What silence costs a client that never answered, and one that answered once and fell silent.
@pytest.mark.parametrize("require_reply,never_answered,answered_once", [
    ("auto", "stays", "408"), ("yes", "408", "408"), ("no", "stays", "stays")])
def test_require_reply_decides_whose_silence_counts(start_server, require_reply, never_answered,
                                                    answered_once):
    server = start_server(keepalive("100ms", 2, require_reply))
    with Client(server).handshake("never") as never, Client(server).handshake("once") as once:
        once.answer(time.monotonic() + limit(5), rounds=1)
        for client, outcome in ((never, never_answered), (once, answered_once)):
            if outcome == "stays":
                for _ in range(8):
                    client.expect(KEEP_ALIVE)
            else:
                client.expect_refusal(408, after_keep_alives=True)


def test_answer_in_time_makes_up_for_the_misses_before_it(start_server):
    server = start_server(keepalive("100ms", 3, "yes"))
    with Client(server).handshake("lazy") as client:
        for _ in range(4):
            client.expect(KEEP_ALIVE)
            client.expect(KEEP_ALIVE)
            client.send_line("100")
        assert server.rows()["lazy"]["cstatus"] == 1


def test_unasked_line_is_no_answer_to_a_keep_alive(start_server):
    server = start_server(keepalive("100ms", 2, "yes"))
    with Client(server).handshake("web-1") as client:
        client.expect(KEEP_ALIVE)
        client.send_line("hello")
        client.expect_refusal(408, after_keep_alives=True)


def test_round_trip_time_is_recorded(start_server):
    server = start_server(keepalive("200ms"))
    with Client(server).handshake("web-1") as client, Client(server).handshake("mute") as mute:
        client.expect(KEEP_ALIVE)
        time.sleep(0.06)
        client.send_line("100")
        mute.expect(KEEP_ALIVE)
        client.expect(KEEP_ALIVE)
    row = ended_row(server, "web-1")
    assert 55 <= row["rtt_ms"] <= 60 + 100 * SCALE
    assert ended_row(server, "mute")["rtt_ms"] is None


def test_last_seen_moves_with_the_answers(start_server):
    server = start_server(keepalive("100ms"))
    client = Client(server).handshake("web-1")
    first = server.rows()["web-1"]["last_seen"]
    client.answer(time.monotonic() + 2.2)
    now = time.time()
    client.close()
    row = ended_row(server, "web-1")
    assert row["last_seen"] >= first + 1
    assert now - 1.5 <= row["last_seen"] <= time.time()


def test_new_session_starts_with_a_clean_slate(start_server):
    server = start_server(keepalive("100ms", 2, "auto"))
    with Client(server).handshake("web-1") as client:
        client.answer(time.monotonic() + limit(5), rounds=2)
    # It answered in its last session; in this one it has not, so auto lets it be silent.
    wait_until(lambda: server.rows()["web-1"]["cstatus"] == 0)
    with Client(server).handshake("web-1") as client:
        for _ in range(6):
            client.expect(KEEP_ALIVE)


# --- a stall of the server ----------------------------------------------------------------------


def test_stopped_server_drops_nobody_who_answered_meanwhile(start_server):
    server = start_server(keepalive("100ms", 2, "yes"))
    with Witness(server, count=40) as witness:
        witness.wait_asked(2)
        for _ in range(3):
            server.signal(signal.SIGSTOP)
            time.sleep(0.8)  # the stall; longer than interval × (misses + 1)
            server.signal(signal.SIGCONT)
            witness.wait_asked(3)
        witness.check()
    assert "timed_out" not in server.log_text()


def test_answer_behind_a_crowd_in_the_kernel_counts_before_its_client_is_judged(start_server):
    # More is ready after the stall than an event loop is told of at once; the answer comes last.
    server = start_server({**keepalive("300ms", 1, "yes"), "limits": {"handshake_timeout": "10h"}})
    with Client(server).handshake("web-1") as client:
        crowd = []
        client.answer(time.monotonic() + limit(5), rounds=1)
        for _ in range(300):
            crowd.append(Client(server))
            crowd[-1].expect(ASK_PASSWORD)
            while True:
                try:
                    line = client.recv_line(0, scaled=False)
                except TimeoutError:
                    break
                assert line == KEEP_ALIVE
                client.send_line("100")
        for _ in range(3):
            client.expect(KEEP_ALIVE)
            server.signal(signal.SIGSTOP)
            for other in crowd:
                other.send(b"x")
            client.send_line("100")
            time.sleep(0.5)  # the next one is due, and none may stay unanswered
            server.signal(signal.SIGCONT)
        client.expect(KEEP_ALIVE)
    for other in crowd:
        other.close()


def test_stopped_server_still_drops_the_silent_afterwards(start_server):
    server = start_server(keepalive("100ms", 2, "yes"))
    with Client(server).handshake("silent") as client:
        client.expect(KEEP_ALIVE)
        server.signal(signal.SIGSTOP)
        time.sleep(0.5)
        server.signal(signal.SIGCONT)
        client.expect_refusal(408, after_keep_alives=True)


def test_stall_brings_no_burst_of_keep_alives(start_server):
    server = start_server(keepalive("100ms", 255, "no"))
    with Client(server).handshake("web-1") as client:
        client.expect(KEEP_ALIVE)
        server.signal(signal.SIGSTOP)
        time.sleep(1.0)
        with pytest.raises(TimeoutError):  # what was sent before the stop
            for _ in range(100):
                client.recv_line(0.01, scaled=False)
        server.signal(signal.SIGCONT)
        start = time.monotonic()
        times = client.answer(start + 0.5)
    # Ten were due while it was stopped; what is past is past.
    assert len(times) <= 0.5 / 0.1 + 3


def test_pending_handshakes_of_a_stopped_server_are_taken_first(start_server):
    server = start_server({"limits": {"handshake_timeout": "400ms"}})
    with Client(server) as client:
        client.authenticate()
        server.signal(signal.SIGSTOP)
        client.send_line("web-1")  # in time; only the server is late
        time.sleep(0.6)
        server.signal(signal.SIGCONT)
        assert client.recv_line() == b"140: Connected\r\n"


# --- when the network itself is gone ------------------------------------------------------------


@pytest.mark.parametrize("interval,misses,expected_ms", [("10s", 3, 30000), ("250ms", 4, 1000)])
def test_tcp_user_timeout_is_interval_times_misses(start_server, interval, misses, expected_ms):
    server = start_server(keepalive(interval, misses))
    with Client(server).handshake("web-1") as client:
        with server_side_of(server, client) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT) == expected_ms


@needs_network
def test_client_that_never_answers_is_dropped_when_its_network_dies(start_server):
    server = start_server(keepalive("200ms", 3, "auto"), wrap=[
        "unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"])
    mute = in_namespace_of(server.pid, "net", lambda: Client(server).handshake("mute"))
    answering = in_namespace_of(server.pid, "net", lambda: Client(server).handshake("answering"))
    mute.expect(KEEP_ALIVE)
    answering.answer(time.monotonic() + limit(5), rounds=2)
    cut = subprocess.run(["nsenter", "-t", str(server.pid), "-n", "tc", "qdisc", "add", "dev", "lo",
                          "root", "blackhole"], capture_output=True)
    if cut.returncode:
        pytest.skip("tc cannot blackhole the loopback of a namespace")
    start = time.monotonic()
    assert ended_row(server, "mute")["cstatus"] == 0
    assert ended_row(server, "answering")["reason"] == "timed_out"
    # 200 ms × (3 + 1), and the kernel's timers are coarse.
    assert time.monotonic() - start < 0.8 + limit(2.0)
    mute.close()
    answering.close()


@pytest.mark.parametrize("interval,misses,expected", [("10s", 3, "40s"), ("100ms", 3, "400ms"),
                                                      ("30s", 1, "1m")])
def test_start_up_log_says_how_long_the_dead_can_look_alive(start_server, interval, misses,
                                                            expected):
    server = start_server(keepalive(interval, misses))
    server.wait_log(rf" keepalive .*dead_client_max={expected}(\s|$)")
