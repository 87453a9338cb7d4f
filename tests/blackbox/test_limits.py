"""max_clients, max_pending and descriptors: who is let in when there is not room for everyone."""

import os
import re
import resource
import time

from harness import (ASK_ID, ASK_PASSWORD, CONNECTED, REFUSALS, Client, SCALE, Swarm, Witness,
                     connected_ids, limit, wait_until)


def outcome(server, cid="probe"):
    with Client(server) as client:
        return client.outcome(cid)


# --- max_clients --------------------------------------------------------------------------------


def test_max_clients_stay_and_the_next_may_enter_when_one_leaves(start_server):
    server = start_server({"server": {"max_clients": 3}, "keepalive": {"interval": "100ms"}})
    with Witness(server, count=2) as witness:
        third = Client(server).handshake("third")
        for _ in range(5):
            assert outcome(server) == 450
        witness.check()
        assert connected_ids(server.db) == {"witness-0", "witness-1", "third"}
        third.close()
        wait_until(lambda: outcome(server) == 140, what="room after one left")
        witness.wait_asked(2)


def test_crowd_at_max_clients_fills_it_exactly(start_server):
    server = start_server({"server": {"max_clients": 40}, "keepalive": {"interval": "200ms"}})
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"web-{n}" for n in range(120))
        swarm.settle()
        assert swarm.count("connected") == len(connected_ids(server.db)) <= 40
        # Those refused while others were still pending may try again: in the end it is full.
        for number in range(200):
            if swarm.count("connected") == 40:
                break
            swarm.add(f"late-{number}")
            swarm.settle()
        assert swarm.count("connected") == 40
        assert {member.code for member in swarm.members if member.code} == {450}
        swarm.pump(0.5, scaled=False)
        assert swarm.count("connected") == 40


def test_silent_connections_are_no_clients_and_keep_none_out(start_server):
    server = start_server({"server": {"max_clients": 20}, "limits": {"handshake_timeout": "10h"}})
    silent = [Client(server) for _ in range(100)]
    for client in silent:
        client.expect(ASK_PASSWORD)
    clients = [Client(server).handshake(f"web-{n}") for n in range(20)]
    assert outcome(server) == 450
    assert connected_ids(server.db) == {f"web-{n}" for n in range(20)}
    for client in silent + clients:
        client.expect_silence(0)
    # As soon as one has left, there is room for one of those who were silent so far.
    clients.pop().close()
    wait_until(lambda: len(connected_ids(server.db)) == 19)
    late = silent.pop()
    late.send_line("secret")
    late.expect(ASK_ID)
    late.send_line("late")
    late.expect(CONNECTED)
    assert outcome(server) == 450
    for client in [*silent, *clients, late]:
        client.close()


# --- max_pending --------------------------------------------------------------------------------


def fill_pending(server, goal, attempts=4000):
    """Silent connections until that many of them are held; some are refused on the way."""
    held = []
    while len(held) < goal:
        assert attempts > 0, f"only {len(held)} of {goal} pending"
        attempts -= 1
        client = Client(server)
        line = client.recv_line()
        if line == ASK_PASSWORD:
            held.append(client)
        else:
            assert line == REFUSALS[450]
            client.expect_close()
            client.close()
    return held


def share_refused(server, held, attempts):
    """How many of that many newcomers get 450 while exactly these are pending."""
    refused = 0
    baseline = server.fds()
    for _ in range(attempts):
        client = Client(server)
        line = client.recv_line()
        refused += line == REFUSALS[450]
        assert line in (ASK_PASSWORD, REFUSALS[450])
        client.close()
        wait_until(lambda: server.fds() <= baseline)
    for client in held:
        client.expect_silence(0)
    return refused / attempts


LONG = {"limits": {"handshake_timeout": "10h", "max_pending": 40}}


def test_all_are_taken_while_less_than_half_are_pending(start_server):
    server = start_server(LONG)
    held = fill_pending(server, 19, attempts=19)
    assert share_refused(server, held, 50) == 0
    for client in held:
        client.close()


def test_all_are_refused_while_max_pending_are_pending(start_server):
    server = start_server(LONG)
    held = fill_pending(server, 40)
    assert share_refused(server, held, 50) == 1
    held.pop().close()
    for client in held:
        client.close()
    wait_until(lambda: outcome(server) == 140)


def test_share_of_refused_grows_between_half_and_all(start_server):
    server = start_server(LONG)
    held = []
    shares = []
    for level in (22, 30, 38):
        held += fill_pending(server, level - len(held))
        shares.append(share_refused(server, held, 100))
    # A fair share at 30 of 40 is about a half; 100 throws stay within these bounds.
    assert shares[0] <= 0.40, shares
    assert 0.20 <= shares[1] <= 0.80, shares
    assert shares[2] >= 0.60, shares
    assert shares[0] < shares[1] < shares[2], shares
    for client in held:
        client.close()


def test_connected_clients_do_not_count_as_pending(start_server):
    server = start_server({"limits": {"max_pending": 4}})
    clients = [Client(server).handshake(f"web-{n}") for n in range(20)]
    assert len(connected_ids(server.db)) == 20
    for client in clients:
        client.close()


def test_good_client_gets_in_during_a_silent_flood(start_server):
    server = start_server({"limits": {"handshake_timeout": "300ms", "max_pending": 50},
                           "keepalive": {"interval": "100ms", "require_reply": "yes"}})
    baseline = server.fds()
    with Witness(server) as witness, Swarm(server) as flood:
        end = time.monotonic() + 1.5
        entered = tries = 0
        while time.monotonic() < end or not entered:
            flood.add_all([None] * 30)
            flood.pump(0.02, scaled=False)
            tries += 1
            with Client(server, timeout=10) as client:
                entered += client.outcome(f"good-{tries}", timeout=10) == 140
            assert time.monotonic() < end + limit(10), f"nobody entered in {tries} tries"
        flood.pump(5, lambda: not flood.count("connecting", "open"))
        assert {member.code for member in flood.members} == {408, 450}
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
    wait_until(lambda: server.fds() <= baseline, seconds=10, what="descriptors back")


# --- descriptors --------------------------------------------------------------------------------


def test_descriptor_limit_is_raised_as_far_as_it_may(start_server):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = start_server(limits={resource.RLIMIT_NOFILE: (256, min(hard, 4096))})
    soft, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(hard, 4096)
    found = server.wait_log(r" limits .*")
    assert int(re.search(r"descriptors=(\d+)", found.group()).group(1)) == soft
    clients = int(re.search(r"clients=(\d+)", found.group()).group(1))
    assert 0 < clients < soft


def test_refused_clients_that_do_not_close_keep_nobody_out(start_server):
    """They have 2 s to read why, and no limit counts them: there may be very many in that time."""
    server = start_server(limits={resource.RLIMIT_NOFILE: (200, 200)})
    room = int(server.find_log(r" limits .* clients=(\d+)").group(1))
    refused = []
    for _ in range(3 * room):
        client = Client(server)
        client.send(b"\n")
        client.expect(ASK_PASSWORD)
        client.expect(REFUSALS[400])
        refused.append(client)
    with Client(server) as client:
        client.handshake("web-1")
    for client in refused:
        client.close()


def test_out_of_descriptors_pauses_accepting_without_spinning_and_resumes(start_server):
    server = start_server({"keepalive": {"interval": "100ms", "require_reply": "yes"},
                           "limits": {"handshake_timeout": "10h"}})
    with Witness(server) as witness, Swarm(server) as flood:
        server.leave_descriptors(5)
        flood.add_all([None] * 60)
        server.wait_log(r" accept_paused\b")
        flood.pump(0.2, scaled=False)
        cpu = server.cpu_seconds()
        start = time.monotonic()
        flood.pump(1.5, scaled=False)
        used = server.cpu_seconds() - cpu
        assert used < 0.25 * (time.monotonic() - start) * max(1, SCALE), f"{used:.2f} s of CPU"
        asked = sum(bool(member.lines) for member in flood.members)
        assert asked <= 6
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
        # As some go, others are taken; the first ones first.
        for member in [member for member in flood.members if member.lines]:
            flood.drop(member)
        assert flood.pump(3, lambda: sum(bool(member.lines) for member in flood.members) > asked)
        while left := [member for member in flood.members if member.state != "closed"]:
            before = len(left)
            for member in left:
                if member.lines:
                    flood.drop(member)
            assert flood.pump(5, lambda: any(
                member.lines for member in flood.members if member.state != "closed") or not [
                member for member in flood.members if member.state != "closed"]) or before
        server.wait_log(r" accept_resumed\b")
        witness.check(max_gap=1.0)
        assert outcome(server) == 140


def test_raised_limit_ends_the_pause(start_server):
    server = start_server({"keepalive": {"interval": "100ms"},
                           "limits": {"handshake_timeout": "10h"}})
    with Witness(server) as witness, Swarm(server) as flood:
        old = server.leave_descriptors(3)
        flood.add_all([None] * 20)
        server.wait_log(r" accept_paused\b")
        server.set_limit(resource.RLIMIT_NOFILE, old)
        assert flood.pump(3, lambda: all(member.lines for member in flood.members))
        server.wait_log(r" accept_resumed\b")
        witness.check(max_gap=1.0)


def test_out_of_descriptors_logs_little(start_server):
    server = start_server({"limits": {"handshake_timeout": "10h"}})
    with Swarm(server) as flood:
        server.leave_descriptors(2)
        mark = server.mark_log()
        flood.add_all([None] * 30)
        server.wait_log(r" accept_paused\b")
        flood.pump(2.0, scaled=False)
        assert len(server.log) - mark <= 20
        # The registry needs no new descriptor to serve those who are in.
        assert server.proc.poll() is None


def test_few_descriptors_from_the_start_mean_450_and_no_pause(start_server, folder):
    folder.chmod(0o777)
    # Root may raise any limit.
    user = 65534 if os.geteuid() == 0 else None
    server = start_server(limits={resource.RLIMIT_NOFILE: (100, 100)}, user=user)
    clients = int(re.search(r"clients=(\d+)", server.wait_log(r" limits .*").group()).group(1))
    assert 0 < clients < 100
    with Swarm(server, pipelined=True) as swarm:
        for number in range(clients + 20):
            swarm.add(f"web-{number}")
            swarm.settle()
        assert swarm.count("connected") == clients
        assert {member.code for member in swarm.members if member.code} == {450}
        assert not server.find_log("accept_paused")
