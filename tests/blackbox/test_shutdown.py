"""
Shutdown orders with the real server: who is told, when, and what is known of it afterwards, across
whatever ends the server (docs/control.md, "What an order does").

The clients of a Fleet behave as machines do: they shut down, refuse, acknowledge and stay, or
vanish.
Who may be told is said where they are added; the harness fails the test for any other 130, for one
before a 140 and for a second one in a session.
"""

import collections
import contextlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import time

import pytest

from control import Control
from fleet import Fleet
from harness import (BIN, CONNECTED, PASSWORD, REFUSALS, SANITIZER_REPORTS, SHUTDOWN, Client,
                     Witness, free_port, limit, reading, wait_until, write_secret)

STATES = ("pending", "told", "acknowledged", "gone", "still_up", "not_connected", "late")


def order(control, waves, **more):
    """Gives an order and returns it as it was answered."""
    status, answer = control.post("/v1/shutdown", {"waves": waves, **more})
    assert status == 202, answer
    return answer


def show(control):
    status, answer = control.get("/v1/shutdown")
    assert status == 200
    return answer


def cancel(control):
    status, answer = control.delete("/v1/shutdown")
    assert status == 200, answer
    assert answer["state"] == "cancelled"
    return answer


def wait_state(control, state, seconds=10):
    return wait_until(lambda: (answer := show(control))["state"] == state and answer, seconds,
                      f"an order that is {state}")


def wait_wave(control, number, seconds=10):
    return wait_until(lambda: (answer := show(control))["wave"] == number and answer, seconds,
                      f"wave {number}")


def wait_numbers(control, wave, seconds=10, **numbers):
    def right():
        now = show(control)["waves"][wave - 1]
        return all(now[name] == value for name, value in numbers.items())
    wait_until(right, seconds, f"{numbers} in wave {wave}")
    return check_sums(control)


def targets(control):
    """{cid: (wave, state)}"""
    found = [target for page in control.pages("/v1/shutdown/targets", "targets", limit=100)
             for target in page]
    assert len({target["cid"] for target in found}) == len(found)
    return {target["cid"]: (target["wave"], target["state"]) for target in found}


def states(control):
    return {cid: state for cid, (_, state) in targets(control).items()}


def check_sums(control):
    """All numbers of an order against its targets, one by one. While nothing happens."""
    now = show(control)
    counted = collections.Counter(targets(control).values())
    sums = collections.Counter()
    for number, wave in enumerate(now["waves"], 1):
        of = {state: counted[number, state] for state in STATES}
        assert wave["targets"] == sum(of.values()), (wave, of)
        assert wave["pending"] == of["pending"]
        assert wave["gone"] == of["gone"]
        assert wave["not_connected"] == of["not_connected"]
        assert wave["late"] == of["late"]
        assert wave["still_up"] == of["told"] + of["acknowledged"] + of["still_up"]
        assert wave["acknowledged"] >= of["acknowledged"]
        assert wave["told"] == wave["gone"] + wave["still_up"]
        for name in now["totals"]:
            sums[name] += wave[name]
    assert dict(sums) == now["totals"] or not any(now["totals"].values())
    return now


@pytest.fixture
def start(start_server):
    """A server and its control API."""
    def begin(overrides=None, **options):
        server = start_server(overrides, **options)
        return server, Control(server)
    return begin


ENDS = {
    "kill": lambda server: server.kill(),
    "TERM": lambda server: server.stop(signal.SIGTERM),
    "QUIT": lambda server: server.stop(signal.SIGQUIT),
}
DRAIN = {"server": {"drain": "300ms"}}


@pytest.fixture(params=list(ENDS))
def end_and_restart(request, start_server):
    """Ends the server in one of the ways that there are and starts the next one."""
    def act(server):
        ENDS[request.param](server)
        return next_one(start_server, server)
    return act


def next_one(start_server, server):
    """Another server in the same folder, so with the same database."""
    server = start_server(server.sections, folder=server.folder)
    return server, Control(server)


def wait_kept(server, question, what="the database"):
    """Waits until the database answers that; what a client did is there within 100 ms."""
    def ask():
        with reading(server.db) as connection:
            return connection.execute(question).fetchone()[0]
    wait_until(ask, what=what)


# --- waves --------------------------------------------------------------------------------------


def test_waves_go_one_after_the_other_whatever_clients_do(start):
    server, control = start()
    uid = os.getuid()
    with Fleet(server) as fleet, Witness(server) as witness, control.events() as events:
        fleet.add("obey", "web-1", "web-2", "db-1", "nas")
        fleet.add("ack", "web-3")
        fleet.add("stay", "web-4")
        fleet.add("vanish", "web-5")
        fleet.add("stay", "web-off")
        fleet.leave("web-off")
        wait_until(lambda: not control.client("web-off")["cstatus"])
        given = order(control, [["web-*"], ["db-*", "nas"], ["nobody", "web-1"]], grace="1s")
        assert (given["id"], given["state"], given["by"]) == (1, "running", f"uid {uid}")
        assert given["durable"] and given["ended"] is None and given["hold_until"] is None
        assert (given["grace"], given["hold"]) == ("1s", "0s")
        done = wait_state(control, "done")
        fleet.check()
        web = fleet.told(*(f"web-{n}" for n in range(1, 6)))
        late = fleet.told("db-1", "nas")
        assert len(web) == 5 and len(late) == 2
        # Two stay, so the wave has its grace.
        assert min(late) - min(web) >= 0.9
        assert [wave["state"] for wave in done["waves"]] == ["done"] * 3
        assert done["wave"] == 3 and done["ended"] >= done["created"]
        first, second, third = done["waves"]
        assert (first["targets"], first["told"], first["acknowledged"], first["gone"],
                first["still_up"], first["not_connected"]) == (6, 5, 3, 3, 2, 1)
        assert (second["told"], second["acknowledged"], second["gone"]) == (2, 2, 2)
        assert third["targets"] == 0
        check_sums(control)
        assert states(control) == {
            "web-1": "gone", "web-2": "gone", "web-3": "still_up", "web-4": "still_up",
            "web-5": "gone", "web-off": "not_connected", "db-1": "gone", "nas": "gone"}
        assert targets(control)["nas"][0] == 2
        witness.check()
        reasons = {cid: control.client(cid)["reason"] for cid in ("web-1", "web-5", "nas")}
        assert set(reasons.values()) == {"shutdown"}

        # The same as events, in order.
        seen = []
        while not seen or seen[-1]["what"] != "done":
            event = events.next()
            if event.kind == "shutdown":
                assert event.data["order"] == 1
                seen.append(event.data)
        what = [event["what"] for event in seen]
        assert what[:2] == ["started", "wave_started"] and what[-1] == "done"
        told = [(event["wave"], event["cid"]) for event in seen if event["what"] == "told"]
        assert sorted(told[:5]) == [(1, f"web-{n}") for n in range(1, 6)]
        assert sorted(told[5:]) == [(2, "db-1"), (2, "nas")]
        acknowledged = [event["cid"] for event in seen if event["what"] == "acknowledged"]
        assert sorted(acknowledged) == ["db-1", "nas", "web-1", "web-2", "web-3"]
        waves = [(event["what"], event["wave"]) for event in seen if "wave_" in event["what"]]
        assert waves == [(f"wave_{step}", wave) for wave in (1, 2, 3)
                         for step in ("started", "ended")]
        ended = what.index("wave_ended")
        assert all(event["wave"] == 1 for event in seen[:ended + 1] if "wave" in event)

    # And in the log.
    assert server.find_log(rf' warn order_started order=1 by="uid {uid}" state=running waves=3 '
                           r'first=web-\* grace=1s hold=0s')
    assert server.find_log(r" warn order_wave_started order=1 wave=1 match=web-\* targets=6 told=0")
    assert server.find_log(r" warn order_wave_ended order=1 wave=1 .*targets=6 told=5 "
                           r"acknowledged=3 gone=3 still_up=2 not_connected=1")
    assert server.find_log(rf' warn order_ended order=1 by="uid {uid}" state=done .*gone=5 '
                           r"still_up=2 not_told=0")
    assert server.find_log(r" info told order=1 cid=web-\d wave=1")


def test_wave_that_has_gone_does_not_wait_for_the_grace(start):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("obey", *(f"web-{n}" for n in range(20)))
        fleet.add("vanish", *(f"db-{n}" for n in range(20)))
        begin = time.monotonic()
        order(control, [["web-*"], ["db-*"]], grace="1h")
        done = wait_state(control, "done")
        assert time.monotonic() - begin < limit(3)
        assert done["totals"]["gone"] == 40 and done["totals"]["acknowledged"] == 20
        assert max(fleet.told(*(f"web-{n}" for n in range(20)))) <= \
            min(fleet.told(*(f"db-{n}" for n in range(20))))


def test_grace_0_tells_all_without_waiting(start):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("stay", "a", "b", "c")
        order(control, [["a"], ["b"], ["c"]], grace="0s")
        done = wait_state(control, "done")
        fleet.wait_told("a", "b", "c")
        assert done["totals"]["still_up"] == 3
        check_sums(control)


def test_order_for_nobody_is_done_at_once(start):
    server, control = start()
    with Witness(server) as witness:
        order(control, [["nobody-*"], ["nor-this"]], grace="1h")
        done = wait_state(control, "done")
        assert done["totals"]["targets"] == 0
        witness.check()


def test_keep_alives_go_on_for_who_was_told(start):
    server, control = start({"keepalive": {"interval": "50ms"}})
    with Fleet(server) as fleet:
        member, = fleet.add("ack", "web-1")
        order(control, [["web-1"]], grace="1h")
        fleet.wait_told("web-1")
        count = len(member.keep_alives())
        wait_until(lambda: len(member.keep_alives()) > count + 5)
        cancel(control)


def test_dry_run_says_who_and_tells_nobody(start):
    server, control = start()
    with Witness(server, prefix="web") as witness:
        with Client(server).handshake("db-1"), Client(server).handshake("nas"):
            for _ in range(3):
                status, answer = control.post(
                    "/v1/shutdown", {"waves": [["web-[12]", "web-3"], ["*b-1", "web-1", "off"]],
                                     "grace": "0s", "hold": "1h", "dry_run": True})
                assert status == 200 and answer["dry_run"] is True and answer["count"] == 4
                assert [(wave["clients"], wave["count"]) for wave in answer["waves"]] == [
                    (["web-1", "web-2", "web-3"], 3), (["db-1"], 1)]
            assert show(control) == {"state": "none"}
            witness.check()
    with reading(server.db) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone()[0] == 0


# --- newcomers and hold -------------------------------------------------------------------------


def told_right_after_140(server, cid):
    """A client that sends all it has to say at once hears four lines in their order."""
    client = Client(server)
    client.may_be_told = True
    client.send(f"{PASSWORD}\n{cid}\n".encode())
    for line in (b"110: qual a senha\r\n", b"120: qual o ID\r\n", CONNECTED, SHUTDOWN):
        client.expect(line)
    return client


def test_hold_tells_who_comes_late_right_after_its_140(start):
    server, control = start()
    with Fleet(server) as fleet, Witness(server) as witness:
        fleet.add("obey", "web-1")
        given = order(control, [["web-*"], ["db-*"]], grace="1h", hold="3s")
        assert given["hold_until"] == given["created"] + 3
        wait_state(control, "holding")
        for cid in ("web-1", "web-2", "db-1"):
            for _ in range(2):  # each session, not each client
                client = told_right_after_140(server, cid)
                client.send_line("130")
                client.close()
        stranger = Client(server).handshake("x-1")
        wait_numbers(control, 1, targets=2, told=2, gone=2, acknowledged=2)
        wait_state(control, "done")
        assert time.time() >= given["hold_until"] - 0.1
        # The hold is over: who comes now is nobody's target.
        for cid in ("web-1", "web-3", "db-2"):
            with Client(server).handshake(cid) as client:
                client.expect_silence(0.1)
        stranger.expect_silence(0.1)
        stranger.close()
        witness.check()


def test_late_comers_without_hold_are_left_alone(start):
    server, control = start()
    with Fleet(server) as fleet, contextlib.ExitStack() as clients:
        fleet.add("vanish", "web-1")
        fleet.add("stay", "web-2")
        fleet.add("stay", "db-1")
        fleet.add("obey", "db-2")
        fleet.leave("db-2")
        wait_until(lambda: not control.client("db-2")["cstatus"])
        order(control, [["web-*"], ["db-*"]], grace="1500ms")
        fleet.wait_told("web-1", "web-2")
        # Back, or there for the first time, behind their wave: not these.
        late = [clients.enter_context(Client(server)).handshake(cid) for cid in ("web-1", "web-9")]
        # Before their wave: with it.
        fleet.add("obey", "db-2", "db-9")
        assert not fleet.told("db-1", "db-2", "db-9")
        wait_wave(control, 2)
        fleet.wait_told("db-1", "db-2", "db-9")
        for client in late:
            client.expect_silence(0.05)
        wait_state(control, "done")
        assert states(control)["db-2"] == "gone"
        # web-1 had been told before it came back; web-9 never was.
        assert states(control)["web-9"] == "late"
        check_sums(control)


# --- cancel, and a second order -----------------------------------------------------------------


def test_cancel_in_the_middle_of_a_wave_tells_nobody_any_more(start):
    server, control = start()
    with Fleet(server) as fleet, Witness(server, prefix="db") as witness:
        fleet.add("ack", "web-1")
        fleet.add("stay", "web-2")
        order(control, [["web-*"], ["db-*"], ["late-*"]], grace="1h", hold="1h")
        fleet.wait_told("web-1", "web-2")
        wait_numbers(control, 1, acknowledged=1)
        answer = cancel(control)
        assert answer["durable"] and answer["ended"]
        assert [wave["state"] for wave in answer["waves"]] == ["done", "cancelled", "cancelled"]
        with Client(server).handshake("web-3") as late, Client(server).handshake("late-1") as other:
            late.expect_silence(0.1)
            other.expect_silence(0.1)
        assert control.delete("/v1/shutdown")[0] == 404
        assert server.wait_log(r' warn order_cancelled order=1 by="uid \d+"')
        witness.check()
        assert show(control)["totals"]["told"] == 2
        server.kill()


def test_cancel_ends_a_hold(start):
    server, control = start()
    order(control, [["web-*"]], hold="1h")
    wait_state(control, "holding")
    told_right_after_140(server, "web-1").close()
    cancel(control)
    with Client(server).handshake("web-1") as client:
        client.expect_silence(0.1)


def test_second_order_is_refused_while_one_is_under_way(start):
    server, control = start()
    with Fleet(server) as fleet, Witness(server) as witness:
        fleet.add("obey", "web-1")
        fleet.add("stay", "web-2")
        for hold, state in (("0s", "running"), ("1h", "holding")):
            order(control, [["web-2" if state == "running" else "nobody"]], grace="1h", hold=hold)
            before = wait_state(control, state)
            for body in ({"waves": [["*"]]}, {"waves": [["witness-*"]], "grace": "0s"}):
                status, answer = control.post("/v1/shutdown", body)
                assert status == 409 and "under way" in answer["error"]
            assert show(control)["id"] == before["id"]
            # A dry run is no order.
            assert control.post("/v1/shutdown", {"waves": [["*"]], "dry_run": True})[0] == 200
            cancel(control)
        assert order(control, [["web-1"]])["id"] == 3
        wait_state(control, "done")
        fleet.wait_told("web-1")
        witness.check()


def test_session_told_once_is_not_told_by_the_next_order(start):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("stay", "web-1")
        order(control, [["web-1"]], grace="0s")
        wait_state(control, "done")
        order(control, [["web-1"]], grace="0s")
        wait_state(control, "done")
        fleet.wait_told("web-1")
        assert show(control)["totals"]["told"] == 1
        fleet.leave("web-1")
        fleet.add("stay", "web-1")
        order(control, [["web-1"]], grace="0s")
        fleet.wait_told("web-1", times=2)


def test_forget_waits_for_the_end_of_the_order(start):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("obey", "web-1", "db-1")
        fleet.add("stay", "web-2")
        fleet.leave("db-1")
        wait_until(lambda: not control.client("db-1")["cstatus"])
        order(control, [["web-*"]], grace="1h")
        wait_numbers(control, 1, gone=1)
        status, answer = control.delete("/v1/clients/web-1")
        assert status == 409 and "part of the shutdown order" in answer["error"]
        assert control.delete("/v1/clients/db-1")[0] == 200
        cancel(control)
        assert show(control)["totals"]["targets"] == 2
        assert control.delete("/v1/clients/web-1")[0] == 200
        assert states(control) == {"web-2": "still_up"}
        assert check_sums(control)["totals"]["targets"] == 1


# --- restarts -----------------------------------------------------------------------------------


def test_restart_in_the_middle_of_a_wave_goes_on_with_each_target(start, end_and_restart):
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("obey", "web-gone")
        fleet.add("vanish", "web-vanished")
        fleet.add("ack", "web-ack")
        fleet.add("stay", "web-deaf", "web-deaf2", "db-1", "db-2")
        given = order(control, [["web-*"], ["db-*"]], grace="5s")
        wait_numbers(control, 1, told=5, acknowledged=2, gone=2)
        wait_kept(server, "SELECT sum(told) = 5 AND sum(acknowledged) = 2 FROM order_targets")
        wait_kept(server, "SELECT sum(cstatus) = 5 FROM clients")
        assert not fleet.told("db-1", "db-2")
        server, control = end_and_restart(server)

    now = check_sums(control)
    assert (now["id"], now["state"], now["wave"]) == (given["id"], "running", 1)
    assert now["by"] == given["by"] and now["created"] == given["created"] and now["durable"]
    assert states(control) == {
        "web-gone": "gone", "web-vanished": "gone", "web-ack": "acknowledged",
        "web-deaf": "pending", "web-deaf2": "pending", "db-1": "pending", "db-2": "pending"}
    with Fleet(server) as fleet, Witness(server) as witness:
        # Not told, since they were; not told yet, since it is not their turn.
        fleet.add("stay", "web-gone", "web-vanished", "web-ack", may_be_told=False)
        fleet.add("obey", "db-1")
        fleet.add("obey", "web-deaf")
        fleet.wait_told("web-deaf")
        member, = fleet.sessions("web-deaf")
        assert [line for _, line in member.lines][-2:] == [CONNECTED, SHUTDOWN]
        assert not fleet.told("db-1")
        fleet.add("obey", "web-deaf2")
        fleet.wait_told("web-deaf2")
        # Three of the wave are up again, so it takes its grace; then the next one.
        wait_wave(control, 2)
        fleet.wait_told("db-1")
        fleet.add("obey", "db-2")
        fleet.wait_told("db-2")
        wait_state(control, "done")
        check_sums(control)
        witness.check()


def test_restart_leaves_those_alone_who_had_come_too_late(start, end_and_restart):
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("stay", "web-1")
        order(control, [["web-*"]], grace="3s")
        fleet.wait_told("web-1")
        fleet.add("stay", "web-late", may_be_told=False)
        wait_kept(server, "SELECT sum(late) = 1 AND sum(told) = 1 FROM order_targets")
        server, control = end_and_restart(server)
    with Fleet(server) as fleet:
        fleet.add("stay", "web-late", may_be_told=False)
        fleet.add("obey", "web-1")
        fleet.wait_told("web-1")
        wait_state(control, "done")
        assert states(control) == {"web-1": "gone", "web-late": "late"}


def test_order_is_refused_while_the_server_drains(start):
    server, control = start({"server": {"drain": "3s"}})
    with Fleet(server) as fleet:
        fleet.add("stay", *(f"web-{n}" for n in range(8)), may_be_told=False)
        server.signal(signal.SIGQUIT)
        server.wait_log(r"\bdraining\b")
        status, answer = control.post("/v1/shutdown", {"waves": [["*"]]})
        assert status == 503 and "give the order to the next one" in answer["error"]
        assert show(control) == {"state": "none"}
        assert server.wait_exit() == 0


def test_restart_between_waves_does_not_go_back(start, start_server):
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("obey", "web-1")
        fleet.add("stay", "db-1")
        order(control, [["web-*"], ["db-*"], ["x"]], grace="1h")
        wait_kept(server, "SELECT ended IS NOT NULL FROM order_waves WHERE wave = 1")
        server.kill()
        server, control = next_one(start_server, server)
    assert show(control)["wave"] == 2
    with Fleet(server) as fleet, Client(server).handshake("web-1") as back:
        fleet.add("obey", "db-1")
        fleet.wait_told("db-1")
        done = wait_state(control, "done")
        assert [wave["state"] for wave in done["waves"]] == ["done"] * 3
        back.expect_silence(0.05)


def test_restart_while_holding_goes_on_holding_until_its_end(start, end_and_restart):
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("obey", "web-1")
        given = order(control, [["web-*"]], grace="1s", hold="4s")
        wait_state(control, "holding")
        server, control = end_and_restart(server)
    assert show(control)["state"] == "holding"
    assert show(control)["hold_until"] == given["hold_until"]
    told_right_after_140(server, "web-1").close()
    told_right_after_140(server, "web-9").close()
    wait_state(control, "done")
    assert time.time() >= given["hold_until"] - 0.1
    with Client(server).handshake("web-1") as client:
        client.expect_silence(0.1)


def test_restart_of_an_ended_order_reports_it_and_does_nothing(start, end_and_restart):
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("obey", "web-1")
        fleet.add("ack", "web-2")
        order(control, [["web-*"], ["db-*"]], grace="1h")
        wait_numbers(control, 1, acknowledged=2, gone=1)
        before = cancel(control)
        server, control = end_and_restart(server)
    now = show(control)
    for name in ("id", "state", "by", "created", "ended", "grace", "hold", "hold_until", "wave"):
        assert now[name] == before[name], name
    assert [wave["state"] for wave in now["waves"]] == ["done", "cancelled"]
    with Witness(server, count=3, prefix="web") as witness, Client(server).handshake("db-1"):
        assert control.delete("/v1/shutdown")[0] == 404
        witness.check()


def test_kill_9_at_any_moment_reaches_everyone_ordered_and_nobody_else(start, start_server):
    dice = random.Random()
    waves = 3
    size = 15
    ids = [[f"w{wave}-{n}" for n in range(size)] for wave in range(waves)]
    server, control = start(DRAIN)
    fleets = []
    witness = Witness(server)
    fleet = Fleet(server)
    for wave in ids:
        fleet.add("obey", *wave[:-3])
        fleet.add("stay", *wave[-3:])
    order(control, [[f"w{wave}-*"] for wave in range(waves)], grace="1s")
    kills = 0
    while kills < 6:
        time.sleep(dice.random() * 0.4)
        if show(control)["state"] != "running":
            break
        server.kill()
        kills += 1
        fleet.close()
        witness.stop()
        fleets.append(fleet)
        server, control = next_one(start_server, server)
        assert show(control)["state"] == "running"
        # Whoever has not obeyed is still up, and comes back.
        witness = Witness(server)
        obeyed = {member.cid for before in fleets for member in before.swarm.members
                  if member.told and before.behaviour[member.cid] == "obey"}
        fleet = Fleet(server)
        fleet.add("obey", *[cid for wave in ids for cid in wave[:-3] if cid not in obeyed])
        fleet.add("stay", *[cid for wave in ids for cid in wave[-3:]])
    wait_state(control, "done", 20)
    fleet.close()
    fleets.append(fleet)
    witness.check()
    witness.stop()
    times = [[moment for each in fleets for moment in each.told(*wave)] for wave in ids]
    for wave in ids:
        for cid in wave:
            count = sum(len(each.told(cid)) for each in fleets)
            assert count >= 1, f"{cid} was never told, after {kills} kills"
            if fleet.behaviour.get(cid) != "stay":
                assert count == 1, f"{cid}, which had shut down, was told {count} times"
    for wave in range(1, waves):
        assert min(times[wave]) > min(times[wave - 1])
    assert kills > 0


def edit(server, statement):
    with contextlib.closing(sqlite3.connect(server.db)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("minutes, expired", [(14, False), (16, True), (60 * 24 * 365, True)])
@pytest.mark.parametrize("hold", ["0s", "10m"])
def test_order_that_is_too_old_at_the_start_is_expired(start, start_server, minutes, expired, hold):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("stay", "web-1", "db-1")
        order(control, [["web-*"], ["db-*"]], grace="30s", hold=hold)
        fleet.wait_told("web-1")
        server.stop()
    # As if the server had been away for so long beyond its end.
    ago = minutes * 60 + (600 if hold == "10m" else 30)
    edit(server, f"UPDATE orders SET created = created - {ago}")
    edit(server, f"UPDATE order_waves SET started = started - {ago}")
    server, control = next_one(start_server, server)
    if not expired:
        assert show(control)["state"] == "running"
        with Fleet(server) as fleet:
            fleet.add("stay", "web-1")
            fleet.wait_told("web-1")
        return
    now = show(control)
    assert now["state"] == "expired" and now["ended"] and now["durable"]
    assert server.find_log(r' warn order_ended order=1 by="uid \d+" state=expired')
    assert control.delete("/v1/shutdown")[0] == 404
    with Witness(server, count=3, prefix="web") as witness, Client(server).handshake("db-1") as db:
        db.expect_silence(0.1)
        witness.check()
        server.stop()
        server, control = next_one(start_server, server)
        assert show(control)["state"] == "expired"


def test_order_from_the_future_is_expired(start, start_server):
    server, control = start()
    order(control, [["web-*"]], hold="1h")
    wait_state(control, "holding")
    server.stop()
    edit(server, "UPDATE orders SET created = created + 100")
    server, control = next_one(start_server, server)
    assert show(control)["state"] == "expired"
    with Client(server).handshake("web-1") as client:
        client.expect_silence(0.1)


@pytest.mark.parametrize("statement", [
    "UPDATE orders SET state = 'go'", "UPDATE order_waves SET match = 'web-*,,'",
    "UPDATE order_waves SET match = 'web *'"])
def test_order_that_nobody_can_read_is_nobodys_order(start, start_server, statement):
    server, control = start()
    order(control, [["web-*"]], hold="1h")
    wait_state(control, "holding")
    server.stop()
    edit(server, statement)
    server, control = next_one(start_server, server)
    assert show(control) == {"state": "none"}
    assert server.find_log(r" error order_unreadable order=1")
    with Client(server).handshake("web-1") as client:
        client.expect_silence(0.1)
    assert order(control, [["nobody"]])["id"] == 2


# --- a store that fails -------------------------------------------------------------------------


def test_order_is_carried_out_when_it_cannot_be_written(start, start_server):
    server, control = start()
    with Fleet(server) as fleet, Witness(server) as witness:
        fleet.add("ack", "web-1")
        fleet.add("stay", "db-1")
        old = server.set_limit(resource.RLIMIT_FSIZE, 1)
        given = order(control, [["web-*"], ["db-*"]], grace="1h")
        assert given["durable"] is False
        fleet.wait_told("web-1")
        wait_numbers(control, 1, acknowledged=1)
        assert server.find_log(r" warn order_not_durable order=1")
        answer = cancel(control)
        assert answer["durable"] is False
        # A second one, which comes before the first could be written.
        assert order(control, [["db-*"]], grace="1h")["durable"] is False
        fleet.wait_told("db-1")
        server.set_limit(resource.RLIMIT_FSIZE, old)
        wait_kept(server, "SELECT count(*) FROM orders WHERE id = 2", "the order, once it heals")
        wait_kept(server, "SELECT sum(told) = 1 FROM order_targets")
        assert cancel(control)["durable"] is True
        witness.check()
        server.kill()
    server, control = next_one(start_server, server)
    assert (show(control)["id"], show(control)["state"]) == (2, "cancelled")
    with Client(server).handshake("db-1") as client:
        client.expect_silence(0.1)


def test_order_that_is_not_durable_is_forgotten_by_a_restart(start, start_server):
    server, control = start()
    with Fleet(server) as fleet:
        fleet.add("stay", "web-1", "db-1")
        server.set_limit(resource.RLIMIT_FSIZE, 1)
        assert order(control, [["web-*"], ["db-*"]], grace="1h", hold="1h")["durable"] is False
        fleet.wait_told("web-1")
        server.kill()
    server, control = next_one(start_server, server)
    assert show(control) == {"state": "none"}
    with Client(server).handshake("web-1") as web, Client(server).handshake("db-1") as db:
        web.expect_silence(0.1)
        db.expect_silence(0.1)


# --- many, and real agents ----------------------------------------------------------------------


def test_three_waves_of_200_add_up(start):
    server, control = start()
    behaviours = {"obey": 120, "vanish": 40, "ack": 25, "stay": 15}
    with Fleet(server) as fleet, Witness(server) as witness:
        for wave in range(3):
            for behaviour, count in behaviours.items():
                fleet.add(behaviour, *(f"w{wave}-{behaviour}-{n}" for n in range(count)))
        order(control, [[f"w{wave}-*"] for wave in range(3)], grace="2s")
        for wave in (1, 2, 3):
            wait_numbers(control, wave, told=200, acknowledged=145, gone=160, still_up=40)
        done = wait_state(control, "done", 20)
        assert done["totals"] == {"targets": 600, "pending": 0, "told": 600, "acknowledged": 435,
                                  "gone": 480, "still_up": 120, "not_connected": 0, "late": 0}
        check_sums(control)
        by_state = collections.Counter(states(control).values())
        assert by_state == {"gone": 480, "still_up": 120}
        metrics = control.metrics()
        assert {state: metrics[f'cliser_shutdown_targets{{state="{state}"}}']
                for state in ("gone", "still_up", "pending")} == {
                    "gone": 480, "still_up": 120, "pending": 0}
        for member in fleet.swarm.members:
            assert member.told
        witness.check()


class Agents:
    """Real agents, each with a command that leaves a mark, and a server that they come back to."""

    def __init__(self, folder, port, cids):
        self.folder = folder
        write_secret(folder / "password", PASSWORD + "\n")
        self.procs = {cid: subprocess.Popen(
            [BIN / "cliser-agent", "--server", f"127.0.0.1:{port}", "--id", cid, "--password-file",
             folder / "password", "--on-shutdown", f"echo ran >> {folder}/mark-{cid}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / f"log-{cid}").open("wb")) for cid in cids}

    def ran(self, cid):
        mark = self.folder / f"mark-{cid}"
        return mark.read_text().count("ran") if mark.exists() else 0

    def all_ran(self):
        return {cid: self.ran(cid) for cid in self.procs}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for proc in self.procs.values():
            proc.kill()
            proc.wait()
        for cid in self.procs:
            log = (self.folder / f"log-{cid}").read_text("utf-8", "replace")
            assert not any(report in log for report in SANITIZER_REPORTS), log


@pytest.mark.skipif(not (BIN / "cliser-agent").exists(), reason="no cliser-agent: build first")
def test_agents_run_their_command_exactly_once(start, start_server, folder):
    port = free_port()
    server, control = start({"server": {"listen": f"127.0.0.1:{port}"}})
    everyone = ["web-1", "web-2", "db-1", "nas"]

    def all_connected():
        return control.get("/v1/status")[1]["connected"] == len(everyone)

    with Agents(folder, port, everyone) as agents:
        wait_until(all_connected, 10, "the agents")
        order(control, [["web-*"], ["db-*"]], grace="1500ms")
        wait_until(lambda: agents.ran("web-1") and agents.ran("web-2"), what="the first wave")
        assert agents.ran("db-1") == 0
        wait_numbers(control, 1, acknowledged=2)
        wait_kept(server, "SELECT sum(acknowledged) = 2 FROM order_targets")
        server.kill()
        server, control = next_one(start_server, server)
        wait_until(lambda: agents.ran("db-1"), 20, "the second wave")
        wait_state(control, "done", 20)
        wait_until(all_connected, 20, "the agents, which have not really shut down")
        assert agents.all_ran() == {"web-1": 1, "web-2": 1, "db-1": 1, "nas": 0}
        server.stop()
        server, control = next_one(start_server, server)
        wait_until(all_connected, 20, "the agents once more")
        assert agents.all_ran() == {"web-1": 1, "web-2": 1, "db-1": 1, "nas": 0}


# --- nothing else ---------------------------------------------------------------------------------


BAD_BODIES = [
    b"", b"{", b"[]", b"null", b'"*"', b"{\"waves\": [[\"*\"]]", b'{"waves": [["*"]]} x',
    b'{"waves": [["*"]], "waves": [["*"]]}', b"\xff\xfe",
    {}, {"waves": None}, {"waves": []}, {"waves": [[]]}, {"waves": ["*"]}, {"waves": "*"},
    {"waves": [["*"], []]}, {"waves": [["*", ""]]}, {"waves": [["*", 1]]}, {"waves": [["* "]]},
    {"waves": [["*,*"]]}, {"waves": [["*"]], "grace": 60}, {"waves": [["*"]], "grace": "soon"},
    {"waves": [["*"]], "grace": "25h"}, {"waves": [["*"]], "hold": "31d"},
    {"waves": [["*"]], "hold": "-1s"}, {"waves": [["*"]], "dry_run": "true"},
    {"waves": [["*"]], "dry_run": 1}, {"waves": [["*"]], "force": True},
    {"waves": [["*"]] * 65}, {"waves": [["*"] * 257]}, {"waves": [["x" * 129]]},
]


def server_with_ended_order(request, start, start_server):
    """A server whose database has an order that ended in this way, for everybody."""
    server, control = start(DRAIN)
    with Fleet(server) as fleet:
        fleet.add("ack" if request == "done" else "stay", "victim-1", "witness-1")
        if request == "done":
            order(control, [["*"]], grace="0s")
            wait_state(control, "done")
            fleet.wait_told("victim-1", "witness-1")
        else:
            order(control, [["victim-1"], ["*"]], grace="1h", hold="1h")
            fleet.wait_told("victim-1")
            if request == "cancelled":
                cancel(control)
        server.kill()
    if request == "expired":
        edit(server, "UPDATE orders SET created = created - 86400")
        edit(server, "UPDATE order_waves SET started = started - 86400")
    server, control = next_one(start_server, server)
    assert show(control)["state"] == request
    return server, control


@pytest.mark.parametrize("ended", ["done", "cancelled", "expired"])
def test_nothing_but_an_order_ever_sends_a_130(start, start_server, ended):
    server, control = server_with_ended_order(ended, start, start_server)
    keys = {"keepalive": {"interval": "50ms"}}

    def provoke(server, control):
        """Everything that is no order."""
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGXFSZ,
                       signal.SIGHUP):
            server.signal(number)
        server.reload(keys)
        server.reload(ini="[server\n", event="reload_failed")
        for policy in ("probe", "takeover", "reject"):
            server.reload({**keys, "registry": {"duplicate_id": policy}})
            with Client(server).handshake("twice") as holder, Client(server) as newcomer:
                newcomer.authenticate()
                newcomer.send_line("twice")
                if policy == "probe":
                    holder.answer(time.monotonic() + limit(5), rounds=1)
                line = newcomer.recv_line()
                assert line in (CONNECTED, REFUSALS[421])
            wait_until(lambda: not control.client("twice")["cstatus"])
        for password, cid, code in (("wrong", "a", 410), (PASSWORD, "a/b", 420), ("", "a", 400)):
            with Client(server) as client:
                assert client.outcome(cid, password) == code
        status, answer = control.post("/v1/clients/witness-1/ping")
        assert status == 200, answer
        with Client(server).handshake("leaver") as leaver:
            assert control.post("/v1/clients/leaver/disconnect")[0] == 200
            leaver.expect_refusal(430, after_keep_alives=True)
        wait_until(lambda: not control.client("leaver")["cstatus"])
        assert control.delete("/v1/clients/leaver")[0] == 200
        assert control.delete("/v1/shutdown")[0] == 404
        assert control.post("/v1/shutdown", {"waves": [["*"]], "dry_run": True})[0] == 200
        for body in BAD_BODIES:
            status, answer = control.post("/v1/shutdown", body)
            assert status == 400, (body, answer)
        for method in ("PUT", "PATCH"):
            assert control.request(method, "/v1/shutdown", {"waves": [["*"]]}).status == 405
        for path in ("/v1/shutdown?waves=*", "/v1/shutdown/", "/v1/shutdown/targets?state=told"):
            control.request("GET", path)
        assert control.post("/v1/shutdown?dry_run=true", {"waves": [["*"]]})[0] == 400
        assert control.post("/v1/reload")[0] == 200
        old = server.set_limit(resource.RLIMIT_FSIZE, 1)
        with Client(server) as client:
            assert client.outcome("unlucky") == 451
        server.set_limit(resource.RLIMIT_FSIZE, old)
        wait_until(lambda: control.get("/readyz")[0] == 200, what="a store that has healed")

    # What the next server finds, however this one ends; in each of them whoever comes is a witness.
    for end in ENDS.values():
        with Witness(server, count=3) as witness, Client(server).handshake("victim-1") as victim:
            provoke(server, control)
            witness.check()
            victim.answer(time.monotonic())
            with contextlib.suppress(TimeoutError):
                while (line := victim.recv_line(0.05, scaled=False)):
                    assert line != SHUTDOWN
            assert show(control)["state"] == ended
            end(server)
            # The last words, if any, are read as well.
            wait_until(lambda: not witness.swarm.selector.get_map() or witness._failure, 5)
            assert not witness._failure
        server, control = next_one(start_server, server)
    assert show(control)["state"] == ended
