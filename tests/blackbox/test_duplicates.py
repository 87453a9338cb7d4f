"""Two sessions with one ID: who stays, how fast that is decided, and what the registry says."""

import time

import pytest

from harness import (ASK_ID, ASK_PASSWORD, CONNECTED, KEEP_ALIVE, REFUSALS, Client, Swarm, limit,
                     holds_for, wait_until)

PROBE_SECONDS = 2.0


def policy(name, interval="10h"):
    return {"registry": {"duplicate_id": name}, "keepalive": {"interval": interval}}


def claim(server, cid):
    """A newcomer that has sent its ID and waits for the verdict."""
    client = Client(server)
    client.authenticate()
    client.send_line(cid)
    return client


def row_is(server, cid, client):
    """Is that client's connection the one in the record?"""
    row = server.rows()[cid]
    return row["cstatus"] == 1 and row["cport"] == client.port


# --- probe --------------------------------------------------------------------------------------


def test_probe_of_an_answering_holder_refuses_the_newcomer_quickly(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    for _ in range(3):
        newcomer = claim(server, "web-1")
        start = time.monotonic()
        holder.expect(KEEP_ALIVE)
        holder.send_line("100")
        newcomer.expect_refusal(421)
        assert time.monotonic() - start < limit(0.5)
        newcomer.close()
    holder.expect_silence(0.1)
    assert row_is(server, "web-1", holder)


def test_probe_is_the_default(start_server):
    server = start_server({"keepalive": {"interval": "10h"}})
    holder = Client(server).handshake("web-1")
    newcomer = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    holder.send_line("100")
    newcomer.expect_refusal(421)


@pytest.mark.parametrize("require_reply", ["auto", "no"])
def test_probe_of_a_silent_holder_lets_the_newcomer_in_after_two_seconds(start_server,
                                                                       require_reply):
    config = policy("probe")
    config["keepalive"]["require_reply"] = require_reply
    server = start_server(config)
    holder = Client(server).handshake("web-1")
    sid = server.rows()["web-1"]["sid"]
    start = time.monotonic()
    newcomer = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    newcomer.expect(CONNECTED)
    assert PROBE_SECONDS - 0.1 <= time.monotonic() - start <= PROBE_SECONDS + limit(0.7)
    holder.expect_refusal(431)
    assert row_is(server, "web-1", newcomer)
    assert server.rows()["web-1"]["sid"] == sid
    holder.close()
    holds_for(lambda: row_is(server, "web-1", newcomer), 0.3)


def test_probe_of_a_holder_that_leaves_lets_the_newcomer_in_at_once(start_server):
    server = start_server(policy("probe"))
    for leave in (Client.close, Client.rst, Client.finish_writing):
        holder = Client(server).handshake("web-1")
        newcomer = claim(server, "web-1")
        holder.expect(KEEP_ALIVE)
        start = time.monotonic()
        leave(holder)
        newcomer.expect(CONNECTED)
        assert time.monotonic() - start < limit(0.7)
        assert row_is(server, "web-1", newcomer)
        newcomer.close()
        holder.close()
        wait_until(lambda: server.rows()["web-1"]["cstatus"] == 0)


def test_newcomer_that_leaves_while_waiting_costs_the_holder_nothing(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    for leave in (Client.close, Client.rst):
        newcomer = claim(server, "web-1")
        holder.expect(KEEP_ALIVE)
        leave(newcomer)
        holder.expect_silence(PROBE_SECONDS + 0.4)
        assert row_is(server, "web-1", holder)
    # The next newcomer starts a probe of its own.
    holder.send_line("100")
    newcomer = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    holder.send_line("100")
    newcomer.expect_refusal(421)


def test_third_client_is_refused_while_the_probe_runs(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    second = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    start = time.monotonic()
    claim(server, "web-1").expect_refusal(421)
    assert time.monotonic() - start < limit(0.5)
    second.expect(CONNECTED)
    holder.expect_refusal(431)
    assert row_is(server, "web-1", second)


def test_answer_sent_before_the_probe_does_not_count_for_it(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    holder.send_line("100")
    holder.expect_silence(0.1)
    newcomer = claim(server, "web-1")
    newcomer.expect_silence(0.5)
    holder.expect(KEEP_ALIVE)
    newcomer.expect(CONNECTED)
    holder.expect_refusal(431)


def test_unasked_line_is_no_answer_to_a_probe(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    newcomer = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    holder.send_line("hello")
    newcomer.expect(CONNECTED)
    holder.expect_refusal(431)


def test_newcomer_waiting_for_a_probe_is_under_the_handshake_deadline(start_server):
    server = start_server({**policy("probe"), "limits": {"handshake_timeout": "700ms"}})
    holder = Client(server).handshake("web-1")
    newcomer = claim(server, "web-1")
    holder.expect(KEEP_ALIVE)
    newcomer.expect_refusal(408)
    assert time.monotonic() - newcomer.opened <= 0.7 + limit(0.4)
    holder.expect_silence(PROBE_SECONDS)
    assert row_is(server, "web-1", holder)


def test_waiting_newcomer_that_sent_early_answers_is_connected_with_them(start_server):
    server = start_server(policy("probe"))
    holder = Client(server).handshake("web-1")
    newcomer = Client(server)
    newcomer.send(b"secret\nweb-1\n" + b"100\n" * 200)
    newcomer.expect(ASK_PASSWORD)
    newcomer.expect(ASK_ID)
    holder.expect(KEEP_ALIVE)
    holder.close()
    newcomer.expect(CONNECTED)
    newcomer.expect_silence(0.1)


def test_client_that_comes_back_after_a_crash_is_taken_at_once(start_server):
    server = start_server(policy("probe"))
    client = Client(server).handshake("web-1")
    for round_ in range(30):
        if round_ % 2:
            client.rst()
        else:
            client.close()
        client = Client(server)
        start = time.monotonic()
        client.send(b"secret\nweb-1\n")
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)
        assert time.monotonic() - start < limit(0.7)
    assert row_is(server, "web-1", client)


def test_other_clients_are_served_while_a_probe_runs(start_server):
    server = start_server(policy("probe"))
    Client(server).handshake("mute")
    newcomer = claim(server, "mute")
    for number in range(20):
        with Client(server) as client:
            client.handshake(f"web-{number}", timeout=1)
    newcomer.expect(CONNECTED)


# --- takeover and reject ------------------------------------------------------------------------


def test_takeover_replaces_the_holder_at_once(start_server):
    server = start_server(policy("takeover"))
    holder = Client(server).handshake("web-1")
    sid = server.rows()["web-1"]["sid"]
    for _ in range(10):
        start = time.monotonic()
        newcomer = Client(server).handshake("web-1")
        assert time.monotonic() - start < limit(0.7)
        assert holder.recv_line() == REFUSALS[431]
        holder.expect_close()
        holder.close()
        assert row_is(server, "web-1", newcomer)
        assert server.rows()["web-1"]["sid"] == sid
        holder = newcomer
    holds_for(lambda: row_is(server, "web-1", holder), 0.3)


def test_reject_refuses_the_newcomer_and_asks_nobody(start_server):
    server = start_server(policy("reject"))
    holder = Client(server).handshake("web-1")
    for _ in range(3):
        claim(server, "web-1").expect_refusal(421)
    holder.expect_silence(0.1)
    assert row_is(server, "web-1", holder)
    holder.close()
    wait_until(lambda: server.rows()["web-1"]["cstatus"] == 0)
    Client(server).handshake("web-1")


# --- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["probe", "takeover", "reject"])
@pytest.mark.parametrize("pipelined", [True, False], ids=["one-segment", "step-by-step"])
def test_fifty_sockets_with_one_id_end_with_exactly_one_session(start_server, name, pipelined):
    server = start_server(policy(name, interval="200ms"))
    with Swarm(server, pipelined=pipelined) as swarm:
        swarm.add_all(["web-1"] * 50)
        swarm.settle()
        swarm.pump(0.5, scaled=False)  # a loser could still pull the winner down
        winners = swarm.connected()
        assert len(winners) == 1
        allowed = {421, 431} if name == "takeover" else {421}
        assert {member.code for member in swarm.members if member is not winners[0]} <= allowed
        assert swarm.count("refused") == 49
        row = server.rows()["web-1"]
        assert row["cstatus"] == 1
        assert row["cport"] == winners[0].sock.getsockname()[1]
        asked = len(winners[0].keep_alives())
        assert swarm.pump(3, lambda: len(winners[0].keep_alives()) >= asked + 3)
        assert server.rows()["web-1"]["cstatus"] == 1


@pytest.mark.parametrize("name", ["probe", "takeover", "reject"])
def test_losers_that_vanish_in_the_middle_never_remove_the_winner(start_server, name):
    server = start_server(policy(name, interval="100ms"))
    with Swarm(server, pipelined=True) as swarm:
        holder = swarm.add("web-1")
        swarm.settle()
        for step in range(60):
            member = swarm.add("web-1")
            swarm.pump(0.01 * (step % 4), scaled=False)
            swarm.drop(member, rst=step % 2 == 0)
            if name == "takeover" and holder.state != "connected":
                break
        if name == "takeover":
            holder = swarm.add("web-1")
        swarm.settle()
        swarm.pump(0.3, scaled=False)
        assert holder.state == "connected"
        assert server.rows()["web-1"]["cstatus"] == 1
        assert server.rows()["web-1"]["cport"] == holder.sock.getsockname()[1]
        asked = len(holder.keep_alives())
        assert swarm.pump(3, lambda: len(holder.keep_alives()) >= asked + 3)


def test_storm_of_one_id_ends_with_the_last_one_connected(start_server):
    server = start_server(policy("takeover"))
    with Swarm(server, pipelined=True) as swarm:
        for _ in range(100):
            last = swarm.add("web-1")
            swarm.pump(5, lambda: last.state in ("connected", "refused"))
        assert last.state == "connected"
        swarm.pump(0.2, scaled=False)
        assert len(swarm.connected()) == 1
        row = server.rows()["web-1"]
        assert (row["cstatus"], row["cport"]) == (1, last.sock.getsockname()[1])
        swarm.drop(last)
        wait_until(lambda: server.rows()["web-1"]["cstatus"] == 0)
    assert len(server.rows()) == 1
