"""
FAULTS.md G01 and row 11: the n-th allocation of a whole session fails, for every n, and that costs
one connection at most. G02: a process that may not have more memory sheds newcomers. (In a memory
cgroup the kernel kills and no allocation fails: there max_clients is what bounds us.)

Each script is what somebody does to a server that also has witnesses. It is run with the first
allocation failing, then with the second, and so on until it gets to its end without a failure.
Whatever fails, the server lives, nobody else notices, no 130 goes to anybody who was not ordered
to shut down, every connection is counted with one reason, and what comes next works.

  CLISER_ALLOC_ROUNDS  at most so many n of each script, chosen at random; 0: all (default 10)
"""

import itertools
import os
import random
import resource
import signal
import sqlite3
import ssl
import time

import pytest

import oracle
from control import Control, RefusedStream, http_config
from failing_alloc import FOREVER, HEAP, LIBRARY, MAP, FailingAlloc
from harness import (ASK_ID, ASK_PASSWORD, CONNECTED, KEEP_ALIVE, REFUSALS, Client, Swarm,
                     connected_ids, limit, reading, sanitized, wait_until)
from oracle import FULL, fault
from pki import TLS_KEYS, TlsClient, pair, place

WITNESSES = 20
ROUNDS = int(os.environ.get("CLISER_ALLOC_ROUNDS", "0" if FULL else "10"))
BROKEN = (ConnectionError, EOFError)


class Lost(Exception):
    """The script's connection was ended. Nothing wrong with that while memory is out."""


class Guest(Client):
    """A client that knows that it may be thrown out."""

    def expect(self, line, timeout=5.0):
        got = self.try_line(timeout)
        if got != line:
            raise Lost(f"{got!r} instead of {line!r}") if got in ALLOWED_ENDS else \
                AssertionError(f"{line!r} was expected, {got!r} came")

    def try_line(self, timeout=5.0):
        try:
            return self.recv_line(timeout)
        except ConnectionError:
            return b""

    def say(self, text):
        try:
            self.send_line(text)
        except ConnectionError:
            raise Lost("it had gone") from None


ALLOWED_ENDS = {b"", REFUSALS[450], REFUSALS[451]}


class World:
    """A server with witnesses that can be made to run out of memory."""

    def __init__(self, case, folder):
        assert LIBRARY.exists(), f"{LIBRARY} is not built"
        self.case = case
        self.alloc = FailingAlloc(folder)
        self.number = itertools.count()

    def start(self, overrides=None):
        sections = {"keepalive": {"interval": "50ms", "misses": 40}, "registry": {},
                    **http_config(self.alloc.path.parent)}
        for name, keys in (overrides or {}).items():
            sections[name] = {**sections.get(name, {}), **keys}
        self.server = self.case.start(sections, witnesses=WITNESSES, env=self.alloc.env)
        assert self.alloc.is_ready(), "the server does not have the library"
        self.control = self.case.control
        # As the log of each n has some lines of what it could not do.
        self.case.allow("a failure has lines in the log", log_lines=10**6)
        return self

    # What has to be true when it is over.

    def settle(self):
        """Nobody but the witnesses is there."""
        def is_quiet():
            metrics = self.control.metrics()
            phases = {phase: metrics[f'cliser_connections{{phase="{phase}"}}']
                      for phase in ("handshake", "connected", "leaving", "closing")}
            return phases == {"handshake": 0, "connected": WITNESSES, "leaving": 0, "closing": 0}

        wait_until(is_quiet, 8, "a server with nobody but the witnesses")
        wait_until(lambda: self.server.fds() <= self.case.fds + oracle.DESCRIPTOR_SLACK, 5,
                   f"I4: descriptors back at {self.case.fds}")
        wait_until(lambda: not self.case._unaccounted(), 5, "I9: a reason for every connection")

    def check_after(self, spell):
        """After each failure: nobody else has noticed, and the next one gets in."""
        assert self.server.proc.poll() is None, "the server has died"
        assert self.case.witnesses.process.poll() is None, "I8: a witness was told"
        if spell > 1:  # the store rests after it has failed twice
            wait_until(lambda: self.control.get("/readyz")[0] == 200, 5, "a store that is well")
        with Client(self.server) as client:
            client.handshake("afterwards")
            status, _ = self.control.post("/v1/clients/afterwards/disconnect")
            assert status == 200
            client.expect_refusal(430, after_keep_alives=True)
        assert self.control.get("/v1/status")[1]["connected"] == WITNESSES

    # Running scripts.

    def every_n(self, script, spell=1, kinds=HEAP, after=None, rounds=ROUNDS, min_size=0):
        """
        Runs the script with each n; says in the output how many there were. after(fired, result)
        is called when all is over for one n. Returns the number of allocations.
        """
        self.settle()
        total = self.count_calls(script, kinds, after, min_size)
        numbers = list(range(1, total + 40))  # what fails may lead to further allocations
        if rounds and total > rounds:
            numbers = sorted(random.sample(range(1, total + 1), rounds))
        fired = silent = 0
        for n in numbers:
            if self.run_once(script, n, spell, kinds, after, min_size):
                fired += 1
                silent = 0
            else:
                silent += 1
                if silent >= 3 and n > total:
                    break
        self.settle()
        self.case.note(f"{script.__name__}: {total} allocations, {fired} of them failed "
              f"({spell if spell < FOREVER else 'all'} in a row)")
        assert fired > 0 or total <= 2, f"{script.__name__}: none of {total} has failed"
        return total

    def count_calls(self, script, kinds, after, min_size):
        """Twice, since the first time some things are made that stay."""
        for _ in range(2):
            self.run_once(script, FOREVER, 1, kinds, after, min_size)
        return self.calls

    def run_once(self, script, n, spell, kinds, after, min_size):
        tag = next(self.number)
        result = None
        try:
            if hasattr(script, "prepare"):
                script.prepare(self, tag)
            self.alloc.arm(n, spell, kinds, min_size)
            try:
                result = script(self, tag)
            except Lost as lost:
                result = lost
            finally:
                failed = self.alloc.disarm()
                self.calls = self.alloc.calls
            if not failed and isinstance(result, Lost):
                raise AssertionError(f"nothing failed, and yet: {result}")
            if after:
                after(self, tag, failed, result)
            self.check_after(spell)
        except BaseException as error:
            where = self.alloc.where(self.server.pid) if self.server.proc.poll() is None else \
                f"it ended with {self.server.proc.poll()}"
            error.args = (f"{script.__name__}: n = {n}, spell {spell}: {error}\n"
                          f"the allocation that failed: {where}",)
            raise
        return failed


@pytest.fixture
def world(case, folder):
    made = World(case, folder)
    yield made
    made.alloc.disarm()


# --- clients ------------------------------------------------------------------------------------


def wrong_password(world, tag):
    with Guest(world.server) as client:
        client.expect(ASK_PASSWORD)
        client.say("nobody knows it")
        client.expect(REFUSALS[410])


def whole_session(world, tag):
    """A new ID, its keep-alives, a ping by an operator, and the end."""
    with Guest(world.server) as client:
        handshake(client, f"new-{tag}")
        for _ in range(2):
            client.expect(KEEP_ALIVE)
            client.say("100")


def known_id(world, tag):
    with Guest(world.server) as client:
        handshake(client, "known")


def split_lines(world, tag):
    """Half lines have to be kept, in a bufferevent."""
    with Guest(world.server) as client:
        client.expect(ASK_PASSWORD)
        for part in ("sec", "ret", "\n"):
            say_part(client, part)
        client.expect(ASK_ID)
        for part in (f"split-{tag}"[:4], f"split-{tag}"[4:], "\n"):
            say_part(client, part)
        client.expect(CONNECTED)
        for _ in range(2):
            client.expect(KEEP_ALIVE)
            for part in ("1", "00", "\n"):
                say_part(client, part)


def early_lines(world, tag):
    """All at once: what comes behind the ID is held while the store is asked."""
    with Guest(world.server) as client:
        client.say(f"secret\nearly-{tag}\n100\n1")
        client.expect(ASK_PASSWORD)
        client.expect(ASK_ID)
        client.expect(CONNECTED)
        client.expect(KEEP_ALIVE)
        client.say("00\n")


def reset(world, tag):
    client = Guest(world.server)
    handshake(client, f"reset-{tag}")
    client.rst()
    # The file is looked at, since a request would allocate as well. Without any memory it cannot
    # be written, and what happens then is looked at in the end.
    end = time.monotonic() + limit(0.2)
    while f"reset-{tag}" in connected_ids(world.server.db) and time.monotonic() < end:
        time.sleep(0.005)


def duplicate_id(world, tag):
    """The holder answers, so the newcomer hears 421."""
    with Guest(world.server) as holder:
        handshake(holder, f"twice-{tag}")
        with Guest(world.server) as newcomer:
            newcomer.expect(ASK_PASSWORD)
            newcomer.say("secret")
            newcomer.expect(ASK_ID)
            newcomer.say(f"twice-{tag}")
            holder.expect(KEEP_ALIVE)
            holder.say("100")
            line = newcomer.try_line()
            while line == KEEP_ALIVE:
                line = newcomer.try_line()
            # A second 140 while the holder lives would be two sessions with one ID.
            if line not in ALLOWED_ENDS | {REFUSALS[421]}:
                raise AssertionError(f"the newcomer heard {line!r}")


def takeover(world, tag):
    """With duplicate_id = takeover: the holder hears 431, the newcomer 140."""
    with Guest(world.server) as holder:
        handshake(holder, f"over-{tag}")
        with Guest(world.server) as newcomer:
            handshake(newcomer, f"over-{tag}")
            line = holder.try_line()
            while line == KEEP_ALIVE:
                line = holder.try_line()
            assert line in ALLOWED_ENDS | {REFUSALS[431]}


def handshake(client, cid):
    client.expect(ASK_PASSWORD)
    client.say("secret")
    client.expect(ASK_ID)
    client.say(cid)
    client.expect(CONNECTED)


def say_part(client, text):
    """A segment of its own."""
    try:
        client.send(text.encode())
    except ConnectionError:
        raise Lost("it had gone") from None
    time.sleep(0.001)


def forget_strangers(world, tag, failed, result):
    """So that the registry stays as large as it was, and forgetting is tried as well."""
    wait_until(lambda: not any(row["cstatus"] for row in strangers(world)), 5,
               "the end of all sessions but the witnesses'")
    for row in strangers(world):
        status, _ = world.control.delete(f"/v1/clients/{row['cid']}")
        assert status == 200


def strangers(world):
    status, page = world.control.get("/v1/clients", limit=1000)
    assert status == 200
    return [row for row in page["clients"] if not row["cid"].startswith("witness")]


CLIENT_SCRIPTS = [wrong_password, whole_session, known_id, split_lines, early_lines, reset,
                  duplicate_id]
for_each_script = pytest.mark.parametrize("script", CLIENT_SCRIPTS,
                                          ids=lambda script: script.__name__)


@fault("G01", "the n-th allocation of clients' sessions fails, for every n")
def test_client(world):
    """Every n, also in the short set: they are not many."""
    world.start()
    for script in CLIENT_SCRIPTS:
        world.every_n(script, after=forget_strangers, rounds=0)


@fault("G01", "three, and all allocations from the n-th on fail while clients come and go")
def test_client_with_more_than_one_failure(world):
    world.start()
    for spell in (3, FOREVER):
        for script in CLIENT_SCRIPTS:
            world.every_n(script, spell=spell, after=forget_strangers)


def tls_session(version):
    """
    The handshake, a session with keep-alives and half a line, and an end in order. The witnesses
    are plain: a TLS one, whose records take and give back memory, may be the one that is hit.
    """
    def script(world, tag):
        try:
            with TlsGuest(world.server, world.ca.context(version=version)) as client:
                handshake(client, f"tls-{tag}")
                client.expect(KEEP_ALIVE)
                client.say("100")
                say_part(client, "1")
                client.expect(KEEP_ALIVE)
                say_part(client, "00\n")
                client.leave()
        except (OSError, EOFError) as error:
            raise Lost(f"TLS: {error!r}") from None

    script.__name__ = f"tls_session_{version.name}"
    return script


def tls_half_line(world, tag):
    """Only the moment in which a TLS connection gets a bufferevent, and what follows."""
    client = world.half_line
    try:
        say_part(client, "1")
        say_part(client, "00\n")
        client.expect(KEEP_ALIVE)
        client.leave()
    except (OSError, EOFError) as error:
        raise Lost(f"TLS: {error!r}") from None
    finally:
        client.close()


def connect_for_half_line(world, tag):
    world.half_line = TlsGuest(world.server, world.ca.context())
    handshake(world.half_line, f"half-{tag}")


tls_half_line.prepare = connect_for_half_line


class TlsGuest(TlsClient, Guest):
    """The same over TLS, which may end within its handshake."""


@fault("G01", "the n-th allocation fails when half a line comes over TLS, for every n")
def test_half_a_line_over_tls(world, folder, ca):
    place(folder, *pair(ca))
    world.ca = ca
    world.start({"server": TLS_KEYS})
    for spell in (1, 2, FOREVER):
        world.every_n(tls_half_line, spell=spell, after=forget_strangers, rounds=0)


@fault("G01", "the n-th allocation of a TLS session fails, from the handshake to the end")
def test_tls_client(world, folder, ca):
    place(folder, *pair(ca))
    world.ca = ca
    world.start({"server": TLS_KEYS})
    for spell in (1, 3, FOREVER):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            world.every_n(tls_session(version), spell=spell, after=forget_strangers)
    assert world.control.metrics()["cliser_tls_connections"] == 0


@fault("G01", "the n-th allocation of a takeover fails")
def test_takeover(world):
    world.start({"registry": {"duplicate_id": "takeover"}})
    world.every_n(takeover, after=forget_strangers)


# --- operators ----------------------------------------------------------------------------------


def ask(world, method, path, body=None, status=200, control=None):
    """An answer; without memory there is none, or a 503 that says so, or the library's 500."""
    try:
        answer = (control or world.control).request(method, path, body)
    except BROKEN as error:
        raise Lost(f"{method} {path}: {error!r}") from None
    if answer.status == 500:
        raise Lost(f"{method} {path}: the library has no memory")
    if answer.status == 503:
        assert answer.json["error"] == "out of memory", answer.json
        raise Lost(f"{method} {path}: out of memory")
    if answer.status == 409 and "out of memory" in str(answer.json.get("errors")):
        raise Lost("the reload: out of memory")
    if answer.status == 400 != status and "is not JSON" in answer.json["error"]:
        raise Lost("jansson takes a string that it has no memory for as a wrong one")
    assert answer.status == status, f"{method} {path}: {answer.status} {answer.body!r}"
    return answer


def status(world, tag):
    answer = ask(world, "GET", "/v1/status").json
    assert answer["connected"] == WITNESSES


def client_list(world, tag):
    """The whole list, or none: one that lacks somebody would be a wrong answer."""
    page = ask(world, "GET", "/v1/clients?match=witness-*&limit=1000").json
    assert len(page["clients"]) == WITNESSES and page["next"] is None
    assert all(set(record) == RECORD for record in page["clients"])


RECORD = set()


def one_client(world, tag):
    RECORD.update(ask(world, "GET", "/v1/clients/witness-0").json)
    ask(world, "GET", "/v1/clients/nobody", status=404)


def metrics(world, tag):
    text = ask(world, "GET", "/metrics").body.decode()
    assert text.endswith("\n") and "\nprocess_start_time_seconds " in text, text[-200:]


def dry_run(world, tag):
    answer = ask(world, "POST", "/v1/shutdown", {
        "waves": [["witness-?"], ["witness-1?"]], "dry_run": True}).json
    assert answer["count"] == WITNESSES, answer
    assert [wave["match"] for wave in answer["waves"]] == [["witness-?"], ["witness-1?"]]


def bad_requests(world, tag):
    ask(world, "POST", "/v1/shutdown", b'{"waves": [["a"', status=400)
    ask(world, "POST", "/v1/shutdown", {"waves": []}, status=400)
    ask(world, "GET", "/v1/clients?limit=none", status=400)
    ask(world, "GET", "/nothing", status=404)
    ask(world, "DELETE", "/v1/status", status=405)


def http_port(world, tag):
    """Over TCP, where a token is asked for: nobody is let in for want of memory."""
    port = Control(world.server, tcp=True)
    ask(world, "GET", "/readyz", control=port)
    ask(world, "GET", "/v1/status", control=port)
    ask(world, "GET", "/v1/status", status=401, control=Control(world.server, tcp=True, token="x"))


def one_connection(world, tag):
    """Two requests, the second with a body that is larger than what the library keeps."""
    with world.control.raw() as raw:
        try:
            for body in (b"{}", b'{"waves":[["' + b"a" * 40000 + b'"]]}'):
                raw.ask("POST /v1/shutdown", ["Content-Type: application/json"], body)
                answer = raw.answer()
                if answer.status in (500, 503):
                    raise Lost("out of memory")
                assert answer.status == 400
        except BROKEN as error:
            raise Lost(repr(error)) from None


def ping_and_disconnect(world, tag):
    with Guest(world.server) as client:
        handshake(client, f"pinged-{tag}")
        with world.control.raw() as raw:
            try:
                raw.ask(f"POST /v1/clients/pinged-{tag}/ping",
                        ["Content-Type: application/json", "Content-Length: 0"])
                client.expect(KEEP_ALIVE)
                client.say("100")
                answer = raw.answer()
            except BROKEN as error:
                raise Lost(repr(error)) from None
            assert answer.status in (200, 409, 500, 503)
        ask(world, "POST", f"/v1/clients/pinged-{tag}/disconnect")
        line = client.try_line()
        while line == KEEP_ALIVE:
            line = client.try_line()
        assert line == REFUSALS[430]


def event_stream(world, tag):
    """Whatever comes in a stream is whole; after a moment also what had no memory at first."""
    cid = f"seen-{tag}"
    try:
        with world.control.events() as stream:
            with Guest(world.server) as client:
                handshake(client, cid)
            event = stream.wait("connected", 1, cid=cid)
            assert set(event.data) == {"time", "cid", "sid", "cip", "cport", "credential"}
            event = stream.wait("disconnected", 1, cid=cid)
            assert set(event.data) == {"time", "cid", "sid", "cip", "cport", "reason"}
    except RefusedStream as refused:
        assert refused.answer.status == 503
        raise Lost("no stream") from None
    except TimeoutError:
        if world.alloc.failed < 2:
            raise
        raise Lost("there was no memory for the event again and again") from None
    except BROKEN as error:
        raise Lost(repr(error)) from None


REQUESTS = [one_client, status, client_list, metrics, dry_run, bad_requests, http_port,
            one_connection, ping_and_disconnect, event_stream]


@fault("G01", "the n-th allocation of operators' requests fails")
def test_requests(world):
    world.start()
    for script in REQUESTS:
        world.every_n(script, after=forget_strangers)


@fault("G01", "three, and all allocations from the n-th on fail while operators ask")
def test_requests_with_more_than_one_failure(world):
    world.start()
    for spell in (3, FOREVER):
        for script in REQUESTS:
            world.every_n(script, spell=spell, after=forget_strangers,
                          rounds=ROUNDS and ROUNDS // 2)


# --- orders -------------------------------------------------------------------------------------


VICTIMS = [f"victim-{n}-rack7" for n in range(3)]


class Victims:
    """Those that an order is for, and only that."""

    def __init__(self, world):
        self.swarm = Swarm(world.server, on_told=self.acknowledge)
        self.swarm.add_all(VICTIMS, may_be_told=True)
        self.swarm.settle()
        assert self.swarm.count("connected") == len(VICTIMS)

    def acknowledge(self, member):
        self.swarm.say(member, "130")
        self.swarm.drop(member)

    def told(self):
        return sum(member.told is not None for member in self.swarm.members)


def prepare_victims(world, tag):
    world.victims = Victims(world)
    world.last_order = world.control.get("/v1/shutdown")[1].get("id", 0)


def give_order(world, body):
    """Gives it and lets its victims do what they are told. Returns the answer's JSON."""
    answer = ask(world, "POST", "/v1/shutdown", body, status=202).json
    world.victims.swarm.pump(5, lambda: all(member.state in ("closed", "refused", "failed")
                                            for member in world.victims.swarm.members))
    return answer


def check_order(world, tag, failed, result):
    """It was kept and carried out, or it was not and nobody has heard of it."""
    victims = world.victims
    order = world.control.get("/v1/shutdown")[1]
    if isinstance(result, Lost) and "out of memory" in str(result):
        assert order.get("id", 0) == world.last_order, "it was refused, and yet it is there"
    if order.get("id", 0) == world.last_order:
        assert isinstance(result, Lost), f"it was accepted, and there is none: {order}"
        victims.swarm.pump(0.1, scaled=False)
        assert victims.told() == 0, "somebody was told by an order that is not there"
    else:
        assert order["id"] == world.last_order + 1
        victims.swarm.pump(8, lambda: world.control.get("/v1/shutdown")[1]["state"] == "done")
        order = world.control.get("/v1/shutdown")[1]
        assert order["state"] == "done", order
        assert len(order["waves"]) == world.waves
        # Whose session was lost for want of memory cannot be told.
        lost = sum(member.told is None and member.state == "closed"
                   for member in victims.swarm.members)
        assert victims.told() == order["totals"]["told"] == len(VICTIMS) - lost, order
        assert lost == 0 or failed
    victims.swarm.close()
    forget_strangers(world, tag, failed, result)
    # What the file says is what we know, soon, also if the order's save was what failed.
    wait_until(lambda: last_order(world) == (order.get("id", 0), order["state"]), 5,
               f"the order {order.get('id')} in the file as {order['state']}")


def last_order(world):
    with reading(world.server.db) as db:
        row = db.execute("SELECT id, state FROM orders ORDER BY id DESC LIMIT 1").fetchone()
    return (row["id"], row["state"]) if row else (0, "none")


def shutdown_order(world, tag):
    world.waves = 2
    answer = give_order(world, {"waves": [["victim-0-*", "nobody"], ["victim-*"]], "grace": "1s"})
    # Without memory to say more it is said briefly that it is taken.
    assert answer["state"] == "running" and len(answer.get("waves", [0, 0])) == 2


def long_order(world, tag):
    """A list of more than 8 KiB, which cut off where a buffer ends would be an order for all."""
    world.waves = 1
    ids = [f"nobody-{n:07}" for n in range(546)]
    ids[-1] = "x" * (8191 - sum(len(cid) + 1 for cid in ids[:-1]) - 1)
    assert len(",".join(ids)) + 1 == 8191 and len(ids[-1]) <= 64
    give_order(world, {"waves": [[*ids, "*-rack7"]], "grace": "1s"})


shutdown_order.prepare = long_order.prepare = prepare_victims


@fault("G01", "the n-th allocation of a shutdown order fails, until it is over")
def test_order(world):
    world.start()
    world.every_n(shutdown_order, after=check_order)


@fault("G01", "all allocations from the n-th on fail while a shutdown order is given")
def test_order_without_any_memory(world):
    world.start()
    world.every_n(shutdown_order, spell=20, after=check_order, rounds=ROUNDS // 2)


@fault("G01", "an order with a long list, whose n-th large allocation fails")
def test_order_with_a_long_list(world):
    world.start()
    world.every_n(long_order, after=check_order, min_size=4096, rounds=0)


def locked_orders(world, tag):
    """The file is locked: what is to be written of orders has to be kept until it is not."""
    for _ in range(2):
        try:
            ask(world, "POST", "/v1/shutdown", {"waves": [["nobody", "no-*"]], "hold": "1h"},
                status=202)
        except Lost as lost:
            if "out of memory" in str(lost):
                continue  # so there is none; the next one may find memory
        for _ in range(3):
            try:
                answer = world.control.request("DELETE", "/v1/shutdown")
            except BROKEN:
                continue
            if answer.status in (200, 404):
                break


def lock_file(world, tag):
    world.lock = sqlite3.connect(world.server.db, isolation_level=None)
    world.lock.execute("BEGIN IMMEDIATE")
    world.last_order = world.control.get("/v1/shutdown")[1].get("id", 0)


def check_locked_orders(world, tag, failed, result):
    order = world.control.get("/v1/shutdown")[1]
    world.lock.execute("ROLLBACK")
    world.lock.close()
    assert order["state"] in ("none", "cancelled")
    wait_until(lambda: world.control.get("/readyz")[0] == 200, 8, "a store that is well")
    wait_until(lambda: last_order(world) == (order.get("id", 0), order["state"]), 5,
               "the last order in the file as it is")
    with reading(world.server.db) as db:
        states = [row["state"] for row in db.execute("SELECT state FROM orders WHERE id > ?",
                                                     [world.last_order])]
    # Also those that another one came after before they could be written.
    assert states == ["cancelled"] * (order.get("id", 0) - world.last_order), states


locked_orders.prepare = lock_file


@fault("G01", "orders that cannot be written yet, and the n-th allocation fails as well")
def test_orders_of_a_locked_file(world):
    world.start()
    world.every_n(locked_orders, after=check_locked_orders)


# --- configuration ------------------------------------------------------------------------------


NEW_CONFIG = {"auth": {"password": ["new one", "new two"]}, "server": {"max_clients": "5000"},
              "log": {"level": "info", "format": "text"}}


def prepare_reload(world, tag):
    world.server.rewrite_ini(NEW_CONFIG)
    world.log_mark = world.server.mark_log()


def reload(world, tag):
    world.server.signal(signal.SIGHUP)
    world.server.wait_log(r"\b(reloaded|reload_failed)\b", start=world.log_mark)


def reload_by_operator(world, tag):
    ask(world, "POST", "/v1/reload", status=200)


def reload_broken(world, tag):
    world.server.rewrite_ini(ini=b"[server]\nlisten = nowhere\nx = y\n[auth]\npassword=q\n")
    reload(world, tag)


def check_config(world, tag, failed, result):
    """The old configuration or the new one, whole."""
    accepted = [accepts(world, password) for password in ("secret", "new one", "new two")]
    limit_now = world.control.get("/v1/status")[1]["max_clients"]
    assert accepted in ([True, False, False], [False, True, True])
    world.is_new = accepted[1]
    assert (limit_now == 5000) == world.is_new
    assert world.is_new or failed
    world.server.reload()
    forget_strangers(world, tag, failed, result)


def check_broken(world, tag, failed, result):
    check_config(world, tag, True, result)
    assert not world.is_new


def accepts(world, password):
    with Client(world.server) as client:
        outcome = client.outcome("asks", password)
    assert outcome in (140, 410)
    return outcome == 140


reload.prepare = reload_by_operator.prepare = reload_broken.prepare = prepare_reload


@fault("G01", "the n-th allocation of a reload fails")
def test_reload(world):
    world.start({"limits": {"auth_failures": "100000"}} if has_key("auth_failures") else None)
    for script, check in ((reload, check_config), (reload_by_operator, check_config),
                          (reload_broken, check_broken)):
        world.every_n(script, after=check)


def has_key(key):
    return key in (oracle.harness.ROOT / "src" / "main" / "config.c").read_text()


# --- the store ----------------------------------------------------------------------------------


def many_at_once(world, tag):
    """Registrations and ends of some clients in few commits."""
    with Swarm(world.server, pipelined=True) as swarm:
        swarm.add_all(f"many-{tag}-{n}" for n in range(8))
        swarm.settle()
        assert all(member.state in ("connected", "refused", "closed", "failed")
                   for member in swarm.members)
        world.refused = swarm.count("refused", "closed", "failed")
    if world.refused:
        raise Lost(f"{world.refused} were refused")


def lost_file(world, tag):
    """Somebody has removed the database: it is made anew, with everybody in it."""
    for path in world.server.folder.glob("cliser.db*"):
        path.unlink()
    with Guest(world.server) as client:
        handshake(client, f"anew-{tag}")


def check_file(world, tag, failed, result):
    wait_until(lambda: world.control.get("/readyz")[0] == 200, 8, "a store that is well")
    forget_strangers(world, tag, failed, result)
    wait_until(lambda: rows_or_none(world) == {f"witness-{n}" for n in range(WITNESSES)}, 5,
               "the witnesses, and nobody else, connected in the file")


def rows_or_none(world):
    try:
        return connected_ids(world.server.db)
    except Exception:  # there is no table yet
        return None


@fault("G01", "the n-th allocation fails while the registry's file is written, or made anew")
def test_store(world):
    world.start()
    world.every_n(many_at_once, after=check_file)
    world.every_n(lost_file, after=check_file)
    world.every_n(lost_file, spell=5, after=check_file, rounds=ROUNDS // 2)


@fault("G01", "the n-th mapping of memory fails")
def test_maps(world):
    world.start()
    world.every_n(lost_file, after=check_file, kinds=MAP, rounds=0)


# --- servers that have just been started, or end ------------------------------------------------


def fresh_server(start_server, folder, n, act):
    """Starts one, with two clients, lets the n-th allocation fail while act runs, and ends it."""
    place = folder / f"fresh-{n}"
    place.mkdir()
    alloc = FailingAlloc(place)
    server = start_server({"keepalive": {"interval": "50ms"}, "control": {"socket": "s"},
                           "server": {"drain": "50ms"}},
                          folder=place, env=alloc.env)
    with Swarm(server) as swarm:
        swarm.add_all(["innocent-1", "innocent-2"])
        swarm.settle()
        alloc.arm(n)
        try:
            act(server, swarm)
        except Lost:
            assert alloc.failed, "nothing failed, and yet somebody was lost"
        except BaseException as error:
            where = alloc.where(server.pid) if server.proc.poll() is None else "?"
            error.args = (f"n = {n}: {error}\nthe allocation that failed: {where}",)
            raise
        finally:
            failed = alloc.disarm()
        calls = alloc.calls
        code = server.stop() if server.proc.poll() is None else server.proc.returncode
        assert code == 0, f"n = {n}: it ended with {code}"
    assert not connected_ids(server.db) or failed
    return failed, calls


def each_fresh_server(case, start_server, folder, act, most=400):
    total = fresh_server(start_server, folder, FOREVER, act)[1]
    numbers = range(1, min(total, most) + 1)
    if ROUNDS:
        numbers = sorted(random.sample(numbers, min(ROUNDS, len(numbers))))
    fired = sum(fresh_server(start_server, folder, n, act)[0] for n in numbers)
    case.note(f"{act.__name__}: {total} allocations, {fired} of them failed")
    assert fired > 0


def first_sessions(server, swarm):
    """What is made once, with the first clients, may fail as well."""
    for cid in ("first", "second"):
        with Guest(server) as client:
            say_part(client, "sec")
            client.expect(ASK_PASSWORD)
            client.say("ret")
            client.expect(ASK_ID)
            client.say(cid)
            client.expect(CONNECTED)
    swarm.pump(0.12, scaled=False)
    assert swarm.count("connected") == 2, "somebody else was lost"


def stop(server, swarm):
    assert server.stop() == 0


def drain(server, swarm):
    server.signal(signal.SIGQUIT)
    swarm.pump(5, lambda: swarm.count("refused", "closed") == 2)
    assert swarm.count("refused", "closed") == 2
    assert server.wait_exit() == 0


@fault("G01", "the n-th allocation of a server's first sessions, its stop, its drain fails")
@pytest.mark.parametrize("act", [first_sessions, stop, drain], ids=lambda act: act.__name__)
def test_fresh_servers(case, start_server, folder, act):
    # The oracle wants a server of its own.
    case.start(witnesses=1)
    each_fresh_server(case, start_server, folder, act)


# --- G02 ----------------------------------------------------------------------------------------


def address_space(server):
    text = open(f"/proc/{server.pid}/statm", encoding="ascii").read()
    return int(text.split()[0]) * resource.getpagesize()


@fault("G02", "the address space may not grow while clients pour in", rounds=1500, full=6000)
@pytest.mark.skipif(sanitized(), reason="G02: a sanitizer reserves terabytes of address space")
def test_address_space(case):
    """
    Newcomers are shed, with 450 or without a word; whoever is connected stays and is kept alive,
    as the witnesses will say; and when there is memory again everybody gets in.
    """
    server = case.start({"server": {"max_clients": "100000"}}, witnesses=WITNESSES)
    case.allow("clients are refused by the thousand", log_lines=10**5, memory_kib=64 * 1024)
    old = server.set_limit(resource.RLIMIT_AS, address_space(server))
    # Their halves of lines take more memory than the heap has left.
    with Swarm(server) as swarm:
        for _ in range(case.rounds):
            member = swarm.add(None)
            member.half = False
        halves = 0

        def speak():
            nonlocal halves
            for member in swarm.members:
                if member.state == "open" and member.lines and not member.half:
                    member.half = True
                    halves += 1
                    swarm._send(member, b"x" * 200)
            return swarm.count("refused", "closed", "failed") > case.rounds // 20

        assert swarm.pump(9, speak), "there was memory for all of them"
        shed = swarm.count("refused", "closed", "failed")
        for member in swarm.members:
            assert member.code in (None, 408, 450, 451), member.code
    server.set_limit(resource.RLIMIT_AS, old)
    case.note(f"{halves} halves of lines, {shed} of {case.rounds} shed")
    wait_until(lambda: case.control.get("/readyz")[0] == 200, 5, "a store that is well")
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"again-{n}" for n in range(100))
        swarm.settle()
        assert swarm.count("connected") == 100
