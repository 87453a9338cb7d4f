"""Rows F: a registry whose file cannot be written, read, locked or trusted."""

import contextlib
import pathlib
import random
import resource
import sqlite3
import time

import pytest

import harness
import test_kill9
from harness import (CONNECTED, REFUSALS, Client, Swarm, connected_ids, in_namespace_of, limit,
                     needs_mounts, wait_until)
from oracle import INTERVAL_S, fault, preloaded

TMPFS = ["unshare", "-m", "sh", "-c",
         'mkdir -p disk && mount -t tmpfs -o size=2m none disk && exec "$@"', "sh"]


def outage(case, begin, end, look=lambda work: work()):
    """
    The store fails and heals: newcomers get 451, /readyz says no, one line is logged, those who
    are connected stay, who leaves meanwhile is written down afterwards.
    """
    server = case.server
    leaver = Client(server).handshake("leaver")
    begin()
    inside = []
    for number in range(3000):
        client = Client(server)
        outcome = client.outcome(f"during-{number}", timeout=10)
        if outcome != 140:
            assert outcome == 451
            client.close()
            break
        inside.append(client)
    else:
        pytest.fail("a disk that takes nothing has taken 3000 clients")
    leaver.close()
    wait_until(lambda: case.control.get("/readyz")[0] == 503, what="not ready")
    time.sleep(2 * INTERVAL_S)  # so that the witnesses are asked meanwhile
    assert len([line for line in server.log if " store_failed " in line]) == 1
    end()
    wait_until(lambda: case.control.get("/readyz")[0] == 200, 20, "ready again")

    def can_register():
        with Client(server) as client:
            return client.outcome("after") == 140

    wait_until(can_register, 15, "a registration after the outage")
    for client in inside:
        client.close()
    wait_until(lambda: look(lambda: len(connected_ids(server.db))) == case.witnesses.count, 15,
               "the file equal to the sockets again")
    with contextlib.suppress(FileNotFoundError):
        assert look(lambda: quick_check(server.db)) == "ok"


def quick_check(db):
    with harness.reading(db) as connection:
        return connection.execute("PRAGMA quick_check").fetchone()[0]


def on_tmpfs(case):
    server = case.start({"registry": {"path": "disk/cliser.db"}}, wrap=TMPFS)
    server.db = server.folder / "disk" / "cliser.db"
    return server, pathlib.Path(f"/proc/{server.pid}/root{server.folder}/disk")


@needs_mounts
@fault("F01", "a disk that is full")
def test_full_disk(case):
    server, disk = on_tmpfs(case)
    case.allow("the clients of the outage are lines", log_lines=8000)

    def fill():
        with (disk / "filler").open("wb", buffering=0) as file:
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    outage(case, fill, (disk / "filler").unlink,
           lambda work: in_namespace_of(server.pid, "mnt", work))


@fault("F03", "files that may not grow")
def test_file_size_limit(case):
    server = case.start()
    case.allow("the clients of the outage are lines", log_lines=8000)
    size = max(path.stat().st_size for path in server.folder.glob("cliser.db*"))
    old = []
    outage(case, lambda: old.append(server.set_limit(resource.RLIMIT_FSIZE, size)),
           lambda: server.set_limit(resource.RLIMIT_FSIZE, old[0]))


class Disk:
    """The preloaded disk's switch."""

    def __init__(self, folder):
        self.path = folder / "disk-control"
        self.path.write_bytes(b"0")

    def set(self, mode):
        with self.path.open("r+b") as file:
            file.write(mode)

    def environment(self):
        return preloaded("disk", CLISER_DISK_CONTROL=str(self.path))


@fault("F02", "a file system that has become read-only")
def test_read_only(case, folder):
    disk = Disk(folder)
    case.start(env=disk.environment())
    case.allow("the clients of the outage are lines", log_lines=8000)
    outage(case, lambda: disk.set(b"e"), lambda: disk.set(b"0"))


@pytest.mark.parametrize("mode", [b"w", b"s"], ids=["write", "sync"])
@fault("F04", "EIO when it writes, or syncs")
def test_input_output_errors(case, folder, mode):
    disk = Disk(folder)
    case.start({"registry": {"sync": "full"}}, env=disk.environment())
    case.allow("the clients of the outage are lines", log_lines=8000)
    outage(case, lambda: disk.set(mode), lambda: disk.set(b"0"))


@pytest.mark.parametrize("modes", [(b"w", b"o"), (b"w", b"r")], ids=["open", "read"])
@fault("F04", "EIO when it opens the file again, or reads it")
def test_errors_while_it_recovers(case, folder, modes):
    disk = Disk(folder)
    case.start(env=disk.environment())
    case.allow("the clients of the outage are lines", log_lines=8000)
    first, then = modes

    def begin():
        disk.set(first)
        with Client(case.server) as client:
            assert client.outcome("first", timeout=10) == 451
        disk.set(then)

    outage(case, begin, lambda: disk.set(b"0"))


@fault("F05", "somebody else locks the file", rounds=1, full=10)
def test_foreign_lock(case):
    server = case.start()
    for number in range(case.rounds):
        connection = sqlite3.connect(server.db, isolation_level=None, timeout=0)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("BEGIN EXCLUSIVE")
        with Client(server) as client:
            client.authenticate()
            client.send_line(f"locked-{number}")
            assert client.recv_line(15) in (CONNECTED, REFUSALS[451])
        time.sleep(2 * INTERVAL_S)  # so that the witnesses are asked meanwhile
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("ROLLBACK")
        connection.close()

        def can_register():
            with Client(server) as client:
                return client.outcome("after") == 140

        wait_until(can_register, 15, "a registration after the lock")


@fault("F06", "kill -9 among clients that come and go", rounds=10, full=1000)
def test_kill_9(start_server, folder, request, monkeypatch):
    rounds = request.node.get_closest_marker("fault").kwargs["rounds"]
    monkeypatch.setattr(test_kill9, "ROUNDS", rounds)
    test_kill9.test_kill_9_under_connecting_clients_loses_nobody_who_read_140(start_server, folder)


def flip(data, dice):
    for _ in range(dice.randrange(1, 200)):
        data[dice.randrange(100, len(data))] ^= 1 << dice.randrange(8)


HARMS = {
    "flipped": flip,
    "truncated": lambda data, dice: data.__delitem__(slice(dice.randrange(100, len(data)), None)),
    "page-lost": lambda data, dice: data.__setitem__(slice(4096, 8192), bytes(4096)),
    "begin-lost": lambda data, dice: data.__setitem__(slice(0, 16), bytes(16)),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
@fault("F07", "a damaged file at the start", rounds=2, full=50)
def test_damaged_file_at_the_start(start_server, folder, request, harm):
    """It starts, with who was known or with an empty registry beside the damaged one."""
    dice = random.Random(7)
    for round_ in range(request.node.get_closest_marker("fault").kwargs["rounds"]):
        server = start_server(folder=folder)
        known = server.rows().keys()
        with Swarm(server, pipelined=True) as swarm:
            swarm.add_all(f"client-{round_}-{number:04}" for number in range(200))
            swarm.settle()
        wait_until(lambda: not connected_ids(server.db), 5, "all written")
        assert server.stop() == 0
        for name in ("cliser.db-wal", "cliser.db-shm"):
            (folder / name).unlink(missing_ok=True)
        data = bytearray(server.db.read_bytes())
        harm(data, dice)
        server.db.write_bytes(data)
        server = start_server(folder=folder)
        if kept := server.find_log(r"registry_set_aside .* to=(\S+)"):
            assert (folder / kept[1]).read_bytes() == data
            assert server.rows() == {}
            (folder / kept[1]).unlink()
        else:
            assert len(server.rows()) >= len(known)
        with Client(server) as client:
            client.handshake("after")
        wait_until(lambda: "after" in server.rows(), 5)
        assert quick_check(server.db) == "ok"
        assert server.stop() == 0


@fault("F07", "a file that is damaged while the server runs", rounds=1, full=10)
def test_file_damaged_while_running(case, folder):
    """Everything it should hold is known, so it is written anew."""
    disk = Disk(folder)
    server = case.start(env=disk.environment())
    for number in range(case.rounds):
        # What makes the server look at the file again: an error of the disk that did the damage.
        disk.set(b"w")
        with Client(server) as client:
            assert client.outcome("during", timeout=10) == 451
        with server.db.open("r+b") as file:
            file.seek(4096)
            file.write(bytes([0xff]) * 8192)
        server.db.with_name("cliser.db-wal").unlink()  # which has good copies of those pages
        mark = server.mark_log()
        disk.set(b"0")
        server.wait_log("registry_set_aside", 15, start=mark)

        def can_register():
            with Client(server) as client:
                return client.outcome(f"after-{number}") == 140

        wait_until(can_register, 15, "a registration in the new file")
        wait_until(lambda: len(connected_ids(server.db)) == case.witnesses.count, 15,
                   "the new file equal to the sockets")
        assert quick_check(server.db) == "ok"


@fault("F08", "fsync that takes three seconds")
def test_slow_disk(case, folder):
    disk = Disk(folder)
    server = case.start({"registry": {"sync": "full"}, "keepalive": {"misses": "3"}},
                        env=disk.environment())
    case.allow("the loop waits for the disk, so everybody does", lag_s=10, p99_s=10, gap_s=8)
    disk.set(b"z")
    with Client(server) as client:
        began = time.monotonic()
        client.handshake("slow", timeout=15)
        assert time.monotonic() - began >= 3
    disk.set(b"0")
    with Client(server) as client:
        client.handshake("fast", timeout=limit(10))
    # Nobody was dropped for what the disk did: the oracle looks at the witnesses.
