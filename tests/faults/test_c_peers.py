"""Rows C: peers that stop, do not read, or vanish; and a server whose own time is not its own."""

import ctypes.util
import pathlib
import signal
import sys
import time

import pytest

import harness
from crowd import Crowd
from harness import (ASK_PASSWORD, SHUTDOWN, Client, limit, needs_root, sanitized,
                     wait_until)
from network import IN_NETWORK, LISTEN, SERVER, FarMachine, needs_cable
from oracle import FULL, INTERVAL_S, WITNESSES, fault

MISSES = 3 if FULL else 2
SILENCE_S = INTERVAL_S * (MISSES + 1)  # so long a dead client can look alive
MEMORY_KIB = 6 * 1024
KEEPALIVE = {"keepalive": {"misses": MISSES}}
WIDE = {"server": {"listen": LISTEN}, **KEEPALIVE}


def disconnects(case, reason):
    series = f'cliser_disconnects_total{{reason="{reason}"}}'
    return case.control.metrics()[series] - case.metrics[series]


def gone_in_time(case, cid, began, reason):
    """Offline no later than promised, for that reason, and no earlier than it may be."""
    wait_until(lambda: not case.control.client(cid)["cstatus"], SILENCE_S + 2, f"{cid} offline")
    took = time.monotonic() - began
    assert case.control.client(cid)["reason"] == reason
    assert took <= SILENCE_S + limit(1), f"{cid} looked alive for {took:.1f} s"
    case.note(f"offline after {took:.1f} s")
    return took


def beyond_usual(case, count):
    case.allow("records of the crowd are kept", memory_kib=MEMORY_KIB + count)


@fault("C01", "clients that were stopped", rounds=50, full=2000)
def test_stopped_clients_are_offline_in_time(case):
    server = case.start(KEEPALIVE)
    with Crowd(server, case.rounds) as crowd:
        wait_until(lambda: case.connected() == WITNESSES + case.rounds, 20, "the crowd")
        crowd.signal(signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: case.connected() < WITNESSES + case.rounds, 10, "the first one gone")
        assert time.monotonic() - began >= INTERVAL_S * (MISSES - 1), "dropped too early"
        wait_until(lambda: case.connected() == WITNESSES, SILENCE_S + 2, "all of them offline")
        took = time.monotonic() - began
        assert took <= SILENCE_S + limit(1)
        case.note(f"all offline after {took:.1f} s")
        assert disconnects(case, "timed_out") == case.rounds
    beyond_usual(case, case.rounds)


def probe(server, cid, count):
    """
    Makes the server say something to that client: each newcomer that claims its ID and goes makes
    it ask the holder.
    """
    for _ in range(count):
        with Client(server) as newcomer:
            newcomer.send(f"{harness.PASSWORD}\n{cid}\n".encode())
            newcomer.expect(ASK_PASSWORD)
            newcomer.expect(harness.ASK_ID)


@fault("C02", "a zero window: a peer that never reads", rounds=1, full=5)
def test_zero_window_is_closed_in_time(case):
    """TCP_USER_TIMEOUT counts while the window stays shut; answers of old are of no help."""
    server = case.start({"keepalive": {"misses": MISSES, "require_reply": "no"}})
    for number in range(case.rounds):
        deaf = Client(server, rcvbuf=1).handshake(f"deaf-{number}")
        began = time.monotonic()
        probe(server, f"deaf-{number}", 1000)  # more than the peer's kernel takes
        wait_until(lambda: disconnects(case, "timed_out") + disconnects(case, "slow") > number,
                   30, "the end of a peer that never reads")
        case.note(f"closed after {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began <= SILENCE_S + limit(2)
        deaf.close()


@fault("C03", "a peer that reads a byte now and then", rounds=1, full=5)
def test_slow_drip_reader_is_dropped_when_64_kib_wait(case, folder):
    wire = folder / "wire.sock"
    server = case.start({"server": {"listen": f"127.0.0.1:0, unix:{wire}"},
                         "keepalive": {"require_reply": "no"}})
    rss_kib = server.rss_kib()
    for number in range(case.rounds):
        drip = Client(wire).handshake(f"drip-{number}")
        drip.sock.setblocking(False)
        probes = 0
        began = time.monotonic()
        while not disconnects(case, "slow") > number:
            assert time.monotonic() - began < limit(60), f"still there after {probes} probes"
            probe(wire, f"drip-{number}", 50)
            probes += 50
            drip.sock.recv(1)
        assert probes * len(harness.KEEP_ALIVE) >= 65536, "dropped too early"
        case.note(f"dropped after {probes} lines")
        drip.close()
    if not sanitized():
        assert server.rss_kib() - rss_kib < MEMORY_KIB


def far_client(machine, cid):
    client = machine.do(lambda: Client(SERVER).handshake(cid))
    client.answer(time.monotonic() + limit(5), rounds=2)
    return client


@fault("C04", "half open: the cable is cut", rounds=1, full=10)
@pytest.mark.parametrize("answers", ["auto", "yes"])
def test_cut_cable_is_noticed_in_time(case, answers):
    server = case.start({**WIDE, "keepalive": {"misses": MISSES, "require_reply": answers}},
                        in_network=True, wrap=IN_NETWORK)
    for number in range(case.rounds):
        with FarMachine(server) as machine:
            client = far_client(machine, f"far-{number}")
            machine.cut()
            gone_in_time(case, f"far-{number}", time.monotonic(), "timed_out")
            wait_until(lambda: server.fds() <= case.fds + 2, 3, "its descriptor back")
            client.close()


test_cut_cable_is_noticed_in_time.pytestmark += needs_cable


@fault("C05", "half open with a 130 on its way", rounds=1, full=10)
def test_130_into_a_dead_cable_is_told_to_nobody_else(case):
    server = case.start(WIDE, in_network=True, wrap=IN_NETWORK)
    for number in range(case.rounds):
        cid = f"far-{number}"
        with FarMachine(server) as machine:
            client = far_client(machine, cid)
            machine.cut()
            began = time.monotonic()
            status, order = case.control.post("/v1/shutdown", {
                "waves": [[cid]], "grace": "10s", "hold": "0s"})
            assert status == 202, order
            gone_in_time(case, cid, began, "timed_out")
            progress = wait_until(lambda: (now := case.control.get("/v1/shutdown")[1])
                                  and now["state"] not in ("running", "holding") and now, 15,
                                  "the order's end")
            counts = progress["waves"][0]
            assert (counts["told"], counts["acknowledged"], counts["gone"]) == (1, 0, 1), progress
            client.close()
        # Who comes under that name now is somebody else: Client fails if it is told.
        again = harness.in_namespace_of(server.pid, "net", lambda: Client(server).handshake(cid))
        asked = again.answer(time.monotonic() + 2.5 * INTERVAL_S)
        assert asked
        again.close()


test_130_into_a_dead_cable_is_told_to_nobody_else.pytestmark += needs_cable


@fault("C06", "the peer's machine was reset and is back", rounds=1, full=10)
def test_a_peer_that_knows_nothing_of_us_any_more_is_reset(case):
    server = case.start(WIDE, in_network=True, wrap=IN_NETWORK)
    for number in range(case.rounds):
        machine = FarMachine(server)
        client = far_client(machine, f"far-{number}")
        machine.cut()
        client.close()
        machine.destroy()
        began = time.monotonic()
        with FarMachine(server):
            gone_in_time(case, f"far-{number}", began, "reset")


test_a_peer_that_knows_nothing_of_us_any_more_is_reset.pytestmark += needs_cable


@fault("C07", "the server itself is stopped, all its clients answer", rounds=2000, full=16000)
def test_nobody_is_dropped_for_the_stall_of_the_server(case):
    # With one miss, who owes an answer is dropped if it is not looked for in the kernel.
    server = case.start({"keepalive": {"misses": 1}})
    stopped_s = 60 if FULL else 2.5 * INTERVAL_S
    case.allow(f"stopped for {stopped_s:g} s", gap_s=stopped_s + 3 * INTERVAL_S, late_turns=1)
    with Crowd(server, case.rounds) as crowd:
        wait_until(lambda: case.connected() == WITNESSES + case.rounds, 60, "the crowd")
        wait_all_answered(case, 1)
        # Half of them owe an answer when the server stops, and give it then, into the kernel.
        crowd.signal(signal.SIGSTOP)
        time.sleep(0.5 * INTERVAL_S)
        server.signal(signal.SIGSTOP)
        crowd.signal(signal.SIGCONT)
        time.sleep(stopped_s)
        server.signal(signal.SIGCONT)
        harness.holds_for(lambda: case.connected() == WITNESSES + case.rounds, 3 * INTERVAL_S,
                          "everybody connected")
        assert disconnects(case, "timed_out") == 0
        crowd.check_nobody_lost()
    beyond_usual(case, case.rounds)


def wait_all_answered(case, times):
    name = "cliser_keepalives_answered_total"
    goal = case.control.metrics()[name] + times * case.connected()
    wait_until(lambda: case.control.metrics()[name] >= goal, 15, f"{times} answers of everybody")


@fault("C08", "all keep-alives due at once", rounds=3000, full=16000)
def test_keep_alives_that_are_due_at_once_hold_nobody_up(case):
    server = case.start({"keepalive": {"interval": "10h"}})
    times = 5 if FULL else 1
    case.allow(f"nobody is asked before the reload; stopped {times} times", gap_s=30,
               late_turns=times)
    with Crowd(server, case.rounds) as crowd:
        wait_until(lambda: case.connected() == WITNESSES + case.rounds, 60, "the crowd")
        server.reload({"keepalive": {"interval": f"{int(INTERVAL_S)}s"}})
        for _ in range(times):
            wait_all_answered(case, 1)
            # Stopped for longer than an interval, all are due when it goes on.
            server.signal(signal.SIGSTOP)
            time.sleep(1.2 * INTERVAL_S)
            server.signal(signal.SIGCONT)
        wait_all_answered(case, 2)
        crowd.check_nobody_lost()
    beyond_usual(case, case.rounds)


@fault("C09", "thousands vanish at once", rounds=3000, full=16000)
def test_newcomer_enters_while_thousands_vanish(case):
    server = case.start()
    with Crowd(server, case.rounds) as crowd:
        wait_until(lambda: case.connected() == WITNESSES + case.rounds, 60, "the crowd")
        crowd.process.kill()
        waits = []
        while not waits or case.connected() > WITNESSES:
            began = time.monotonic()
            with Client(server) as client:
                client.handshake(f"newcomer-{len(waits)}")
            waits.append(time.monotonic() - began)
            assert waits[-1] < limit(1), f"a newcomer waited {waits[-1]:.2f} s"
        case.note(f"{len(waits)} newcomers meanwhile, each in by {max(waits):.3f} s")
    beyond_usual(case, case.rounds)


FAKETIME = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
HOUR_S, DAY_S, YEAR_S = 3600, 86400, 365 * 86400
JUMPS_S = [HOUR_S, -HOUR_S, 400 * DAY_S, -10 * YEAR_S]
JUMPS_S += [15 * YEAR_S, -50 * YEAR_S, 60, -1, 0] if FULL else []


@fault("C10", "the wall clock jumps", rounds=1, full=5)
@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.skipif(sanitized(), reason="libfaketime and AddressSanitizer exclude each other")
def test_jumps_of_the_wall_clock_are_harmless(case, folder):
    clock = folder / "clock"
    clock.write_text("+0\n")
    server = case.start(
        {"registry": {"forget_after": "30d"}, "limits": {"handshake_timeout": "3s"}},
        env={"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock),
             "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
             "DONT_FAKE_MONOTONIC": "1"})
    with Client(server) as client:
        client.handshake("absent")
    for round_ in range(case.rounds):
        for jump_s in JUMPS_S:
            with Client(server) as pending:  # its deadline is of another clock
                pending.expect(ASK_PASSWORD)
                clock.write_text(f"{jump_s:+}\n")
                pending.expect_silence(1.1 * INTERVAL_S)
                pending.send_line(harness.PASSWORD)
                assert pending.outcome(f"after-{round_}-{jump_s}") == 140
            since = case.control.client(f"after-{round_}-{jump_s}")["since"]
            assert abs(since - time.time() - jump_s) < limit(5), "its clock did not jump"
            assert case.connected() == WITNESSES
            assert case.control.client("absent"), "forgotten because of the clock"


def time_namespace(boot_offset_s):
    """A command that runs the next one in a time namespace, its monotonic clock so far ahead."""
    return [sys.executable, "-c", f"""
import ctypes, os, sys
libc = ctypes.CDLL({ctypes.util.find_library("c")!r}, use_errno=True)
NEWTIME = 0x80
if libc.unshare(NEWTIME) != 0:
    sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
with open("/proc/self/timens_offsets", "w") as file:
    file.write("monotonic {boot_offset_s} 0\\nboottime {boot_offset_s} 0\\n")
fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY)
if libc.setns(fd, NEWTIME) != 0:
    sys.exit("setns: " + os.strerror(ctypes.get_errno()))
os.close(fd)
os.execvp(sys.argv[1], sys.argv[1:])
"""]


BOUNDARIES_S = {"2^31 ms": 2**31 // 1000, "2^32 ms": 2**32 // 1000, "2^31 s": 2**31,
                "2^32 s": 2**32}


def across(case, name):
    boundary_s = BOUNDARIES_S[name]
    ahead_s = 2 * harness.SCALE
    server = case.start(wrap=time_namespace(int(boundary_s - time.monotonic() - ahead_s)))
    with Client(server) as client:
        client.handshake("regular")
        asked = client.answer(time.monotonic() + ahead_s + 3 * INTERVAL_S)
        assert abs(len(asked) - (ahead_s / INTERVAL_S + 3)) <= 2, f"asked {len(asked)} times"
    with Client(server) as client:
        assert client.outcome("after") == 140
    case.note(f"across {name}")


@fault("C11", "a machine that has been up for 49 days", rounds=1)
@needs_root
def test_uptime_of_49_days(case):
    across(case, "2^32 ms")


@fault("C11", "machines up for 24 days, and 68 and 136 years", rounds=0, full=1)
@needs_root
@pytest.mark.parametrize("name", ["2^31 ms", "2^31 s", "2^32 s"])
def test_other_uptimes(case, name):
    across(case, name)
