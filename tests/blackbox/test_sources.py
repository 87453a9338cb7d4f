"""Limits for the address that clients come from: penalties for wrong passwords, max_per_source."""

import contextlib
import os
import re
import subprocess
import time

import pytest

from control import Control
from harness import (BIN, ASK_ID, ASK_PASSWORD, CONNECTED, REFUSALS, Client, Swarm, Witness,
                     in_namespace_of, limit, needs_network, sanitized,
                     wait_until)

HERE, THERE, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def limits(**keys):
    return {"limits": {"auth_failures": 3, "auth_penalty": "10h", **keys}}


def outcome(server, source=HERE, cid="probe", password="secret"):
    with Client(server, source=source) as client:
        return client.outcome(cid, password)


def guess(server, times, source=HERE):
    assert [outcome(server, source, password="guess") for _ in range(times)] == [410] * times


def metric(server, name):
    return Control(server).metrics()[name]


# --- penalties ----------------------------------------------------------------------------------


def test_source_gets_429_after_its_last_try_and_no_other_source_does(start_server):
    server = start_server(limits())
    guess(server, 2)
    assert outcome(server) == 140  # which does not give the guesser new tries
    guess(server, 1)
    mark = server.mark_log()
    assert [outcome(server) for _ in range(5)] == [429] * 5
    assert outcome(server, THERE, "there") == 140
    assert outcome(server, "127.0.0.1", "local") == 140
    found = server.wait_log(r" penalty (.*)")
    assert found.group(1).startswith(f"source={HERE} wrong_passwords=3 until=")
    assert server.wait_log(rf" refused reason=too_many cip={HERE} ", start=mark)
    assert metric(server, "cliser_penalised_sources") == 1
    assert metric(server, "cliser_penalties_total") == 1
    assert metric(server, 'cliser_refusals_total{code="429"}') == 5
    assert Control(server).get("/v1/status")[1]["penalised_sources"] == 1
    said = subprocess.run([BIN / "cliserctl", "status"], cwd=server.folder, check=True,
                          capture_output=True, text=True).stdout
    assert re.search(r"^shut out +1 address, for wrong passwords$", said, re.M)


def test_default_is_ten_tries(start_server):
    server = start_server({"limits": {"auth_failures": None}})
    guess(server, 10)
    assert outcome(server) == 429
    until = re.search(r"until=(\S+)", server.wait_log(r" penalty .*").group()).group(1)
    left = time.mktime(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
    assert 60 - limit(10) < left <= 61


def test_penalty_ends_on_time_and_not_before(start_server):
    server = start_server(limits(auth_penalty="1500ms"))
    guess(server, 3)
    ended = time.monotonic() + 1.5  # or a moment ago
    while (code := outcome(server)) == 429:
        assert time.monotonic() < ended + limit(2)
    assert code == 140
    # The last 410 was read a little after the penalty began.
    assert time.monotonic() > ended - limit(0.3)
    wait_until(lambda: metric(server, "cliser_penalised_sources") == 0)
    assert metric(server, "cliser_known_sources") == 0
    guess(server, 3)
    assert outcome(server) == 429


def test_connected_clients_of_a_penalised_source_stay(start_server):
    server = start_server({**limits(), "keepalive": {"interval": "100ms", "require_reply": "yes"}})
    with Swarm(server, source=HERE) as neighbours:
        neighbours.add_all(f"nat-{n}" for n in range(5))
        neighbours.settle()
        guess(server, 3)
        assert outcome(server) == 429
        for _ in range(20):
            neighbours.pump(0.05, scaled=False)
            assert outcome(server) == 429
        assert neighbours.count("connected") == 5
        assert all(len(member.keep_alives()) >= 5 for member in neighbours.members)


def test_handshakes_under_way_get_no_guess_after_the_penalty(start_server):
    server = start_server(limits(handshake_timeout="10h"))
    waiting = [Client(server, source=HERE) for _ in range(20)]
    for client in waiting:
        client.expect(ASK_PASSWORD)
    proved = Client(server, source=HERE)
    proved.authenticate()
    guess(server, 3)
    for number, client in enumerate(waiting):
        client.send_line("guess" if number else "secret")
        client.expect_refusal(429)
        client.close()
    proved.send_line("proved")
    proved.expect(CONNECTED)
    proved.close()
    assert metric(server, 'cliser_refusals_total{code="410"}') == 3


def test_what_is_no_wrong_password_brings_no_penalty(start_server):
    server = start_server(limits(auth_failures=1))
    assert outcome(server, password="") == 400
    assert outcome(server, cid="not an id") == 420
    for _ in range(5):
        with Client(server, source=HERE) as client:
            client.expect(ASK_PASSWORD)
    assert outcome(server) == 140
    guess(server, 1)
    assert outcome(server) == 429


def test_unix_sockets_are_no_source(start_server, folder):
    server = start_server({**limits(auth_failures=1, max_per_source=1),
                           "server": {"listen": f"127.0.0.1:0, unix:{folder}/clients"}})
    path = f"{folder}/clients"
    clients = [Client(path).handshake(f"local-{n}") for n in range(3)]
    for _ in range(3):
        with Client(path) as client:
            assert client.outcome("x", "guess") == 410
    for client in clients:
        client.expect_silence(0)
        client.close()


def test_penalty_without_explanations_closes_without_a_line(start_server):
    server = start_server({**limits(auth_failures=1), "server": {"explain_refusals": "no"}})
    assert [outcome(server, password="guess"), outcome(server)] == [0, 0]
    assert outcome(server, THERE) == 140
    wait_until(lambda: metric(server, 'cliser_refusals_total{code="429"}') == 1)


def test_reload_lifts_penalties_and_changes_their_length(start_server):
    server = start_server(limits())
    guess(server, 3)
    assert outcome(server) == 429
    server.reload({"limits": {"auth_failures": 0}})
    assert outcome(server) == 140
    guess(server, 10)
    server.reload()
    assert outcome(server) == 140
    guess(server, 3)
    server.reload({"limits": {"auth_penalty": "1ms"}})
    wait_until(lambda: outcome(server) == 140, what="the end of a millisecond")


def test_thousands_of_tries_cost_little_log_and_disturb_nobody(start_server):
    server = start_server({**limits(), "keepalive": {"interval": "100ms", "require_reply": "yes"}})
    baseline = server.fds()
    with Witness(server) as witness, Swarm(server, "guess", source=HERE) as attack:
        mark = server.mark_log()
        begin = time.monotonic()
        while len(attack.members) < 5000:
            attack.add_all(["guess"] * 50)
            attack.settle()
        took = time.monotonic() - begin
        codes = [member.code for member in attack.members]
        assert set(codes) == {410, 429} and 3 <= codes.count(410) <= 50
        assert outcome(server) == 429 and outcome(server, THERE) == 140
        wait_until(lambda: server.find_log(r" more .*refused=\d+ penalty=0 ", mark))
        assert len(server.log) - mark < 10 * (took + 2)
        assert sum(" penalty " in line for line in server.log[mark:]) == 1
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
    wait_until(lambda: server.fds() <= baseline + 1, what="descriptors back")


def test_very_many_sources_cost_bounded_memory_and_keep_the_penalty_of_one(start_server):
    """Some thousands here; what 100,000 and a million do is in tests/unit/test_sources.c."""
    server = start_server({**limits(auth_failures=2), "registry": {"store": "memory"}})
    guess(server, 2)
    before = server.rss_kib()
    for block in range(10):
        with contextlib.ExitStack() as stack:
            swarms = []
            for number in range(200):
                swarm = stack.enter_context(
                    Swarm(server, "guess", True, source=f"127.1.{block}.{number + 1}"))
                swarm.add("x")
                swarms.append(swarm)
            for swarm in swarms:
                swarm.settle()
                assert swarm.members[0].code == 410
    assert metric(server, "cliser_known_sources") == 2001
    assert metric(server, "cliser_sources_evicted_total") == 0
    if not sanitized():  # whose memory says little
        assert server.rss_kib() - before < 4096
    assert outcome(server) == 429
    assert outcome(server, "127.1.0.1", "one") == 140
    guess(server, 1, "127.1.0.1")
    assert outcome(server, "127.1.0.1") == 429


# --- IPv6 ---------------------------------------------------------------------------------------


@pytest.fixture
def network():
    """A network namespace with addresses of several /64s on its loopback."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    inside = ["nsenter", "-t", str(holder.pid), "-n"]
    own = os.readlink("/proc/self/ns/net")
    wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own)
    commands = ["ip link set lo up"]
    commands += [f"ip addr add {address}/128 dev lo nodad" for address in
                 ("fd00:0:0:1::1", "fd00:0:0:1:ffff::2", "fd00:0:0:1::3", "fd00:0:0:2::1")]
    try:
        for command in commands:
            subprocess.run([*inside, *command.split()], check=True)
        yield holder.pid, inside
    finally:
        holder.kill()
        holder.wait()


@needs_network
def test_ipv6_sources_are_networks_of_64_bits(start_server, network):
    pid, inside = network
    server = start_server({**limits(max_per_source=2),
                           "server": {"listen": "[::1]:0"}}, wrap=inside)

    def from_there(source, password="secret"):
        return in_namespace_of(
            pid, "net", lambda: outcome(server, source, f"at-{source[-4:]}", password))

    addresses = ("fd00:0:0:1::1", "fd00:0:0:1:ffff::2", "fd00:0:0:1::3")
    held = [in_namespace_of(pid, "net", lambda: Client(server, source=source))
            for source in addresses[:2]]
    for client in held:
        client.expect(ASK_PASSWORD)
    assert from_there(addresses[2]) == 429
    assert from_there("fd00:0:0:2::1") == 140
    for client in held:
        client.close()
    wait_until(lambda: from_there(addresses[2]) == 140)

    assert [from_there(source, "guess") for source in addresses] == [410] * 3
    assert {from_there(source) for source in addresses} == {429}
    assert from_there("fd00:0:0:2::1") == 140
    assert from_there("::1") == 140
    server.wait_log(r" penalty source=fd00:0:0:1::/64 ")


# --- max_per_source -----------------------------------------------------------------------------


def test_max_per_source_is_exact_whatever_ends_a_connection(start_server):
    server = start_server({**limits(max_per_source=4, handshake_timeout="400ms", auth_failures=0),
                           "registry": {"duplicate_id": "reject"}})

    def is_full():
        return outcome(server, cid="extra") == 429

    held = [Client(server, source=HERE).handshake(f"nat-{n}") for n in range(3)]
    other = Client(server, source=THERE).handshake("there")

    def room_for_exactly_one():
        """A fourth gets in, a fifth does not, from here; elsewhere there is room."""
        def try_it():
            with Client(server, source=HERE) as fourth:
                if fourth.recv_line() != ASK_PASSWORD:
                    return False
                assert is_full()
                assert outcome(server, ELSEWHERE, "elsewhere") == 140
                return True
        wait_until(try_it, what="room for one")

    room_for_exactly_one()
    for end in ("left", "reset", "half", "password", "id", "duplicate", "empty", "garbage", "late"):
        client = Client(server, source=HERE)
        while client.recv_line() != ASK_PASSWORD:  # the last one may not be noticed yet
            client.close()
            client = Client(server, source=HERE)
        assert is_full()
        if end == "reset":
            client.rst()
        elif end == "half":
            client.finish_writing()
        elif end == "empty":
            client.send_line("")
            client.expect_refusal(400)
        elif end == "garbage":
            client.send(b"x" * 1000)
            client.expect_refusal(400)
        elif end == "password":
            client.send_line("guess")
            client.expect_refusal(410)
        elif end == "late":
            client.expect_refusal(408)
        elif end in ("id", "duplicate"):
            client.send_line("secret")
            client.expect(ASK_ID)
            client.send_line("nat-0" if end == "duplicate" else "not an id")
            client.expect_refusal(421 if end == "duplicate" else 420)
        # Refused and still open on our side: it lingers, and is counted no more.
        room_for_exactly_one()
        client.close()
    held.pop().rst()
    fourth = Client(server, source=HERE)
    wait_until(lambda: metric(server, 'cliser_connections{phase="connected"}') == 3)
    fourth.close()
    assert Control(server).post("/v1/clients/nat-0/disconnect")[0] == 200
    held.pop(0).expect_refusal(430)
    held.append(Client(server, source=HERE).handshake("nat-a"))
    held.append(Client(server, source=HERE).handshake("nat-b"))
    room_for_exactly_one()
    for client in [*held, other]:
        client.expect_silence(0)
        client.close()
    wait_until(lambda: metric(server, "cliser_known_sources") == 0)


def test_crowd_from_one_source_gets_exactly_its_places(start_server):
    server = start_server({**limits(max_per_source=50), "keepalive": {"interval": "100ms"}})
    with Swarm(server, source=HERE) as crowd, Swarm(server, source=THERE) as others:
        crowd.add_all(f"web-{n}" for n in range(200))
        others.add_all(f"db-{n}" for n in range(50))
        crowd.settle()
        others.settle()
        assert (crowd.count("connected"), others.count("connected")) == (50, 50)
        assert len(crowd.refused(429)) == 150
        for member in crowd.connected()[:20]:
            crowd.drop(member, rst=True)
        wait_until(lambda: metric(server, 'cliser_clients{status="connected"}') == 80)
        crowd.add_all(f"late-{n}" for n in range(60))
        crowd.settle()
        assert crowd.count("connected") == 50


def test_reload_of_max_per_source_counts_who_is_there_and_disconnects_nobody(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    assert metric(server, "cliser_known_sources") == 0
    with Swarm(server, source=HERE) as swarm:
        swarm.add_all(f"web-{n}" for n in range(10))
        swarm.settle()
        pending = Client(server, source=HERE)
        pending.expect(ASK_PASSWORD)
        assert metric(server, "cliser_known_sources") == 0
        server.reload({"limits": {"max_per_source": 12}})
        last = Client(server, source=HERE)
        last.expect(ASK_PASSWORD)
        assert outcome(server) == 429
        server.reload({"limits": {"max_per_source": 5}})
        assert outcome(server) == 429
        assert outcome(server, THERE) == 140
        server.reload({"limits": {"max_per_source": 0}})
        assert outcome(server) == 140
        assert metric(server, "cliser_known_sources") == 0
        server.reload({"limits": {"max_per_source": 12}})
        assert outcome(server) == 429
        swarm.pump(0.3, scaled=False)
        assert swarm.count("connected") == 10
        pending.close()
        last.close()
        wait_until(lambda: outcome(server) == 140)


# --- the random share at the door ----------------------------------------------------------------


def test_random_share_follows_the_formula_and_good_clients_get_in(start_server):
    """400 places, 300 of them silent: half of the newcomers, and who tries again is in soon."""
    server = start_server({"limits": {"max_pending": 400, "handshake_timeout": "10h"}})
    held = []
    while len(held) < 300:
        client = Client(server, source=THERE)
        if client.recv_line() == ASK_PASSWORD:
            held.append(client)
        else:
            client.close()
    refused = 0
    tries = 400
    baseline = server.fds()
    for _ in range(tries):
        with Client(server, source=HERE) as client:
            line = client.recv_line()
            assert line in (ASK_PASSWORD, REFUSALS[450])
            refused += line == REFUSALS[450]
        wait_until(lambda: server.fds() <= baseline)
    # Four standard deviations of 25 in 1000.
    assert abs(refused / tries - 0.5) < 0.1, f"{refused} of {tries}"
    needed = []
    for number in range(20):
        attempt = 1
        while outcome(server, ELSEWHERE, f"good-{number}") != 140:
            attempt += 1
            assert attempt < 40
        needed.append(attempt)
    assert sum(needed) / 20 < 4
    for client in held:
        client.expect_silence(0)
        client.close()
