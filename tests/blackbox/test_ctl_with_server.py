"""
cliserctl and cliserd together: what test_ctl.py has seen against a fake, once with the real one;
and a shutdown from the operator's seat. CLISER_FLEET says how many machines that is (300).
"""

import json
import os
import re
import subprocess

import harness
from fleet import Fleet
from harness import Client, Witness, limit, wait_until

CTL = harness.BIN / "cliserctl"
FLEET = int(os.environ.get("CLISER_FLEET", "300"))


def ctl(server, *args, code=0, seconds=60):
    """Runs it in the server's folder, where the socket is; returns its output."""
    done = subprocess.run([str(CTL), *args], cwd=server.folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=limit(seconds))
    for report in harness.SANITIZER_REPORTS:
        assert report not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_every_command_on_a_real_server(server):
    with Client(server).handshake("web-1"), Fleet(server) as fleet, \
            Client(server).handshake("db-1") as database:
        fleet.add("stay", "web-2", may_be_told=False)
        assert "connected   3 of 3 registered" in ctl(server, "status")
        assert json.loads(ctl(server, "status", "--json"))["connected"] == 3
        listed = ctl(server, "list", "web-*", "--connected").splitlines()
        assert [line.split()[:2] for line in listed[1:]] == [["web-1", "connected"],
                                                            ["web-2", "connected"]]
        records = [json.loads(line) for line in ctl(server, "list", "--json").splitlines()]
        assert [record["cid"] for record in records] == ["db-1", "web-1", "web-2"]
        assert re.search(r"^sid +3$", ctl(server, "show", "web-2") + ctl(server, "show", "db-1"),
                         re.M)
        assert "no client web-3; nearest: web-1, web-2" in ctl(server, "show", "web-3", code=3)
        assert re.fullmatch(r"web-2: [\d.,]+ ms\n", ctl(server, "ping", "web-2"))
        assert "is connected" in ctl(server, "forget", "db-1", code=1)
        ctl(server, "disconnect", "db-1")
        database.expect_refusal(430)
        wait_until(lambda: "disconnected" in ctl(server, "list", "db-1"), what="db-1 gone")
        ctl(server, "forget", "db-1")
        ctl(server, "show", "db-1", code=3)
        ctl(server, "reload")
        server.rewrite_ini({"keepalive": {"interval": "soon"}})
        assert "cliser.ini:" in ctl(server, "reload", code=1)
        ctl(server, "shutdown-status")
        ctl(server, "shutdown-cancel", code=1)
        assert "web-1" in ctl(server, "shutdown", "web-*", "--dry-run")
        ctl(server, "shutdown", "nobody-*", "--yes", code=3)


def test_list_of_thousands_is_whole(server):
    with harness.Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"rack-{number:04d}" for number in range(2500))
        swarm.settle(30)
        shown = [json.loads(line)["cid"] for line in ctl(server, "list", "--json").splitlines()]
        assert shown == [f"rack-{number:04d}" for number in range(2500)]
        assert len(ctl(server, "list", "*7").splitlines()) == 1 + 250


def waves(count):
    """IDs of machines in three waves: web, app and db, as 2 : 2 : 1."""
    fifth = count // 5
    return {"web": [f"web-{number}" for number in range(2 * fifth)],
            "app": [f"app-{number}" for number in range(2 * fifth)],
            "db": [f"db-{number}" for number in range(count - 4 * fifth)]}


def test_shutdown_in_three_waves_names_those_that_are_still_up(server):
    fleets = waves(FLEET)
    stubborn = {cid for cids in fleets.values() for cid in cids[::50]}
    with Fleet(server) as fleet, Witness(server) as witness:
        for cids in fleets.values():
            fleet.add("ack", *[cid for cid in cids[::100]])
            fleet.add("stay", *[cid for cid in cids[50::100]])
            fleet.add("obey", *[cid for cid in cids if cid not in stubborn])
        shown = ctl(server, "shutdown", "web-*", "--wave", "app-*", "--wave", "db-*", "--grace",
                    "3s", "--yes", "--json", code=4)
        order = json.loads(shown)
        assert order["state"] == "done" and order["totals"]["told"] == FLEET
        assert order["totals"]["gone"] == FLEET - len(stubborn)
        assert set(order["still_up_clients"]) == stubborn
        # In order, and each wave only after the grace of the one before.
        times = {name: sorted(fleet.told(*cids)) for name, cids in fleets.items()}
        assert [len(times[name]) for name in fleets] == [len(cids) for cids in fleets.values()]
        for earlier, later in (("web", "app"), ("app", "db")):
            assert times[later][0] - times[earlier][0] >= 2.9
            assert times[later][0] > times[earlier][-1]
        spread = {name: when[-1] - when[0] for name, when in times.items()}
        print(f"{FLEET} machines; seconds from the first to the last of a wave: {spread}")
        # Who asks afterwards gets the same answer, and so do those who are still there.
        status = ctl(server, "shutdown-status", code=4)
        assert all(cid in status for cid in list(stubborn)[:3])
        listed = ctl(server, "list", "--json", "--connected").splitlines()
        assert {json.loads(line)["cid"] for line in listed} - {
            member.cid for member in witness.swarm.members} == stubborn
        witness.check()


def test_shutdown_of_all_that_obey_ends_with_0_and_holds(server):
    with Fleet(server) as fleet:
        fleet.add("obey", *[f"web-{number}" for number in range(20)])
        shown = ctl(server, "shutdown", "--all", "--yes")
        assert "holds until" in shown
        # Who comes within the hold is told; and nobody once it is cancelled.
        fleet.add("obey", "late")
        fleet.wait_told("late")
        ctl(server, "shutdown-cancel")
        fleet.add("obey", "later", may_be_told=False)
        assert json.loads(ctl(server, "shutdown-status", "--json"))["state"] == "cancelled"


def test_shutdown_goes_on_over_a_server_that_is_killed(start_server):
    server = start_server()
    with Fleet(server) as fleet, open(server.folder / "said", "w+") as said:
        fleet.add("obey", *[f"web-{number}" for number in range(5)])
        fleet.add("stay", "web-deaf", "db-1")
        operator = subprocess.Popen(
            [str(CTL), "shutdown", "web-*", "--wave", "db-*", "--grace", "4s", "--yes"],
            cwd=server.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        fleet.wait_told("web-deaf")
        wait_until(lambda: len(harness.connected_ids(server.db)) == 2, what="the others' ends")
        server.kill()
        words = server.folder / "said"
        wait_until(lambda: "the order survives a restart" in words.read_text(), what="complaint")
        again = start_server({"server": {"listen": f"127.0.0.1:{server.port}"}},
                             folder=server.folder)
        with Fleet(again) as others:
            others.add("obey", "web-deaf", "db-1")
            assert operator.wait(limit(30)) == 0
            assert "the server is back" in words.read_text()
            assert len(others.told("web-deaf")) == 1 and len(others.told("db-1")) == 1
