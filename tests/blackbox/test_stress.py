"""
cliser-stress tells the truth: against servers that misbehave in ways that are known to the client,
the connection and the millisecond, and against cliserd.
"""

import asyncio
import collections
import json
import os
import pathlib
import pty
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import harness
from harness import limit, wait_until

STRESS = harness.BIN / "cliser-stress"

pytestmark = pytest.mark.skipif(not STRESS.exists(), reason=f"no cliser-stress in {harness.BIN}")


class FakeServer:
    """
    A server that does with each connection what it was told to. The behaviour is a coroutine
    function behave(session); session.number counts connections from 0 in the order they were
    accepted.
    """

    def __init__(self, behave, path=None):
        self.behave = behave
        self.path = path
        self.sessions = []
        self.open = 0
        self.most_open = 0
        self.port = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        if self.path:
            server = await asyncio.start_unix_server(self._serve, self.path, backlog=1024)
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    async def _serve(self, reader, writer):
        session = Session(self, len(self.sessions), reader, writer)
        self.sessions.append(session)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.behave(session)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def total(self, counter):
        return sum(getattr(session, counter) for session in self.sessions)


class Session:
    """One connection of a FakeServer."""

    def __init__(self, server, number, reader, writer):
        self.server = server
        self.number = number
        self.reader = reader
        self.writer = writer
        self.peer = writer.get_extra_info("peername")
        self.id = None
        self.sent = 0
        self.received = 0
        self.asked = 0
        self.answered = 0

    def send(self, data):
        self.sent += len(data)
        self.writer.write(data)

    async def line(self):
        line = await self.reader.readuntil(b"\n")
        self.received += len(line)
        return line.rstrip(b"\r\n")

    async def login(self, welcome=True):
        self.send(harness.ASK_PASSWORD)
        assert await self.line() == b"cliser"
        self.send(harness.ASK_ID)
        self.id = (await self.line()).decode()
        if welcome:
            self.send(harness.CONNECTED)

    async def stay(self):
        """Until the client leaves."""
        while True:
            await self.line()

    async def keep_alive(self, interval, patience=None):
        """Asks at each interval; with patience, drops with 408 who does not answer in it."""
        start = time.monotonic()
        while True:
            # By the clock, so that the gaps do not add up to more than the interval.
            start += interval
            await asyncio.sleep(start - time.monotonic())
            self.send(harness.KEEP_ALIVE)
            self.asked += 1
            try:
                assert await asyncio.wait_for(self.line(), patience) == b"100"
                self.answered += 1
            except asyncio.TimeoutError:
                self.send(harness.REFUSALS[408])
                return

    def reset(self):
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def well_behaved(session):
    await session.login()
    await session.stay()


Result = collections.namedtuple("Result", "code report out err")


def stress(*args, port=None, cwd="/tmp", env=None, seconds=60, **popen):
    """Runs cliser-stress to its end, with the report as JSON on stdout and the table on stderr."""
    target = ["--server", f"127.0.0.1:{port}"] if port else []
    done = subprocess.run([str(STRESS), *target, "--json", "-", *map(str, args)], cwd=cwd, env=env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=limit(seconds), **popen)
    for complaint in harness.SANITIZER_REPORTS:
        assert complaint not in done.stderr, done.stderr
    report = json.loads(done.stdout) if done.stdout else None
    if report:
        check_sum(report)
    return Result(done.returncode, report, done.stdout, done.stderr)


def plain(*args, seconds=60, **popen):
    """Runs cliser-stress without anything added."""
    return subprocess.run([str(STRESS), *map(str, args)], stdin=subprocess.DEVNULL, cwd="/tmp",
                          capture_output=True, text=True, timeout=limit(seconds), **popen)


def check_sum(report):
    """Every client ends in exactly one bin."""
    clients = dict(report["clients"])
    attempted = clients.pop("attempted")
    clients.pop("failed")
    total = sum(sum(bin.values()) if isinstance(bin, dict) else bin for bin in clients.values())
    assert total == attempted == report["asked"]["clients"]


def bins(report):
    """The account without its empty bins."""
    return {name: value for name, value in report["clients"].items()
            if value and name not in ("attempted", "failed")}


# --- every end is counted as what it was --------------------------------------------------------


def test_all_stay_up_and_every_byte_is_counted():
    async def behave(session):
        await session.login()
        await session.keep_alive(0.1)

    with FakeServer(behave) as server:
        result = stress("--clients", 200, "--hold", "1s", port=server.port)
        wait_until(lambda: server.open == 0)
        report = result.report
        assert result.code == 0
        assert report["achieved"]["ok"] is True
        assert bins(report) == {"up": 200}
        assert report["achieved"]["connected_at_once"] == 200
        assert len({session.id for session in server.sessions}) == 200
        assert {session.id for session in server.sessions} == {f"stress-{n}" for n in range(1, 201)}

        # What was under way when the clients closed is the only difference there may be: at most
        # one line for each client.
        keepalive = report["keepalive"]
        assert 200 * 5 <= server.total("asked") - 200 <= keepalive["received"]
        assert keepalive["received"] <= server.total("asked")
        assert keepalive["answered"] == keepalive["received"]
        assert server.total("answered") <= keepalive["answered"]
        assert report["bytes"]["out"] >= server.total("received")
        assert report["bytes"]["out"] <= server.total("received") + 200 * len("100\n")
        assert report["bytes"]["in"] <= server.total("sent")
        assert report["bytes"]["in"] >= server.total("sent") - 200 * len(harness.KEEP_ALIVE)
        assert 90_000 <= keepalive["gap_us"]["p50"] <= 130_000


def test_refusals_are_counted_by_code():
    async def behave(session):
        if session.number % 10 == 9:
            session.send(harness.REFUSALS[450])
        elif session.number % 10 == 8:
            await session.login(welcome=False)
            session.send(harness.REFUSALS[451])
        else:
            await well_behaved(session)

    with FakeServer(behave) as server:
        result = stress("--clients", 300, "--hold", "100ms", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"up": 240, "refused": {"450": 30, "451": 30}}
    assert result.report["clients"]["failed"] == 60
    assert result.report["achieved"]["ok"] is False
    assert re.search(r"450 server full +30\n", result.err)
    assert "FAILED: 60 clients" in result.err


def test_drops_after_140_are_told_apart():
    async def behave(session):
        await session.login()
        # Only when the client has surely read its 140.
        await asyncio.sleep(0.2)
        kind = session.number % 5
        if kind == 0:
            session.send(b"430: disconnected by operator\r\n")
        elif kind == 1:
            return
        elif kind == 2:
            session.reset()
        else:
            await session.stay()

    with FakeServer(behave) as server:
        result = stress("--clients", 100, "--hold", "1s", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"up": 40, "dropped": {"430": 20},
                                   "lost": {"closed": 20, "ECONNRESET": 20}}
    assert result.report["achieved"]["connected_at_once"] <= 100


def test_ends_within_the_handshake_are_told_apart():
    async def behave(session):
        kind = session.number % 4
        if kind == 0:
            session.send(harness.ASK_PASSWORD)
            await session.line()
            session.reset()
        elif kind == 1:
            session.send(harness.ASK_PASSWORD)
            await session.line()
        elif kind == 2:
            session.send(harness.CONNECTED)
            await session.stay()
        else:
            await well_behaved(session)

    with FakeServer(behave) as server:
        result = stress("--clients", 80, "--hold", "100ms", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"up": 20, "lost_early": {"closed": 20, "ECONNRESET": 20},
                                   "violated": 20}


def test_nobody_listening_is_an_errno():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = stress("--clients", 50, port=unused.getsockname()[1])
    assert result.code == 1
    assert bins(result.report) == {"connect_failed": {"ECONNREFUSED": 50}}
    assert "not_measured" in result.report["server"]
    # Nobody is up, so there is nothing to hold.
    assert result.report["achieved"]["elapsed_us"] < limit(5) * 1e6


def test_stuck_handshakes_are_given_up():
    async def behave(session):
        if session.number % 2:
            await well_behaved(session)
        await session.stay()

    with FakeServer(behave) as server:
        result = stress("--clients", 40, "--hold", "0s", "--timeout", "700ms", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"up": 20, "timed_out": 20}
    assert 700_000 <= result.report["achieved"]["connecting_us"] < limit(5) * 1e6


# --- time is what it was ------------------------------------------------------------------------


def test_stalled_prompt_shows_in_its_percentiles_and_its_phase():
    async def behave(session):
        if session.number % 20 == 0:
            await asyncio.sleep(0.5)
        await well_behaved(session)

    with FakeServer(behave) as server:
        result = stress("--clients", 400, "--rate", "400/s", "--hold", "0s", port=server.port)
    assert result.code == 0
    latency = result.report["latency_us"]
    assert latency["handshake"]["count"] == 400
    for phase in ("handshake", "first_prompt"):
        assert latency[phase]["p90"] < 400_000
        assert 500_000 <= latency[phase]["p99"] < 500_000 + limit(300_000)
        assert 500_000 <= latency[phase]["max"]
    assert latency["tcp_connect"]["p99"] < 400_000
    assert latency["login"]["p99"] < 400_000


def test_slow_registration_shows_in_the_login_phase():
    async def behave(session):
        await session.login(welcome=False)
        await asyncio.sleep(0.3)
        session.send(harness.CONNECTED)
        await session.stay()

    with FakeServer(behave) as server:
        result = stress("--clients", 20, "--hold", "0s", port=server.port)
    latency = result.report["latency_us"]
    assert 300_000 <= latency["login"]["min"] <= latency["handshake"]["min"]
    assert latency["first_prompt"]["p50"] < 250_000


def test_stalled_server_cannot_hide_behind_the_inflight_bound():
    """One connect in flight: while it is stalled, nobody else even starts. Those who were due in
    the meantime waited all the same, and count it."""

    async def behave(session):
        if session.number == 10:
            await asyncio.sleep(1.0)
        await well_behaved(session)

    with FakeServer(behave) as server:
        result = stress("--clients", 50, "--rate", 100, "--inflight", 1, "--hold", "0s",
                        port=server.port)
    latency = result.report["latency_us"]
    assert latency["first_prompt"]["p90"] < 200_000
    assert latency["handshake"]["p50"] >= 600_000
    assert latency["handshake"]["p90"] >= 900_000
    assert latency["late"]["p50"] >= 600_000
    assert latency["handshake"]["min"] < 200_000


def test_rate_is_kept():
    with FakeServer(well_behaved) as server:
        result = stress("--clients", 400, "--rate", "200/s", "--hold", "0s", port=server.port)
    assert result.code == 0
    assert 190 <= result.report["achieved"]["rate_per_s"] <= 210
    assert 1_900_000 <= result.report["achieved"]["connecting_us"] <= 2_300_000


def test_hold_counts_from_when_the_last_is_up():
    with FakeServer(well_behaved) as server:
        result = stress("--clients", 50, "--rate", "50/s", "--hold", "1s", port=server.port)
    achieved = result.report["achieved"]
    assert 1_000_000 <= achieved["held_us"] <= 1_500_000
    assert achieved["elapsed_us"] >= 1_950_000


# --- silent clients, churn, orders --------------------------------------------------------------


async def impatient(session):
    await session.login()
    await session.keep_alive(0.1, patience=limit(0.5))


def test_silent_clients_are_dropped_as_expected():
    dropped = []
    for _ in range(2):
        with FakeServer(impatient) as server:
            result = stress("--clients", 100, "--silent", "20%", "--hold", f"{limit(1500):.0f}ms",
                            port=server.port)
            assert result.code == 0
            assert bins(result.report) == {"up": 80, "silent_dropped": {"408": 20}}
            silent = {session.id for session in server.sessions if session.answered == 0}
            assert len(silent) == 20
            assert result.report["keepalive"]["answered"] >= 80
            dropped.append(silent)
    # The same ones in every run, and evenly spread.
    assert dropped[0] == dropped[1]
    numbers = sorted(int(cid.split("-")[1]) for cid in dropped[0])
    assert {after - before for before, after in zip(numbers, numbers[1:])} == {5}


def test_408_of_a_client_that_answers_is_a_failure():
    async def behave(session):
        await session.login()
        session.send(harness.KEEP_ALIVE)
        assert await session.line() == b"100"
        session.send(harness.REFUSALS[408])

    with FakeServer(behave) as server:
        result = stress("--clients", 10, "--hold", "2s", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"dropped": {"408": 10}}


def test_churn_needs_few_descriptors():
    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    with FakeServer(well_behaved) as server:
        result = stress("--clients", 2000, "--inflight", 50, "--churn", port=server.port,
                        preexec_fn=few_descriptors, **as_nobody())
        assert len(server.sessions) == 2000
        # A connection may still be closing while the next one opens.
        assert server.most_open <= 100
    assert result.code == 0
    assert bins(result.report) == {"up": 2000}
    assert result.report["achieved"]["held_us"] == 0


def test_shutdown_order_is_answered_and_counted():
    answers = []

    async def behave(session):
        await session.login()
        session.send(b"130: shutdown sys\r\n")
        answers.append(await session.line())
        session.send(harness.KEEP_ALIVE)
        answers.append(await session.line())
        await session.stay()

    with FakeServer(behave) as server:
        result = stress("--clients", 10, "--silent", "50", "--hold", "500ms", port=server.port)
    assert result.report["shutdowns"] == 10
    # Silent is silent about 100, not about 130.
    assert collections.Counter(answers) == {b"130": 10, b"100": 5}


# --- where clients come from --------------------------------------------------------------------


def test_many_clients_on_loopback_are_spread_over_sources():
    with FakeServer(well_behaved) as server:
        result = stress("--clients", 1200, "--churn", port=server.port)
        sources = collections.Counter(session.peer[0] for session in server.sessions)
    assert result.code == 0
    assert len(sources) > 1
    assert max(sources.values()) - min(sources.values()) <= 1
    first, last = result.report["asked"]["sources"].split("-")
    assert first in sources and last in sources


def test_given_sources_are_used_in_turn():
    with FakeServer(well_behaved) as server:
        stress("--clients", 100, "--churn", "--sources", "127.0.7.254-127.0.8.2", port=server.port)
        sources = collections.Counter(session.peer[0] for session in server.sessions)
    assert sources == {"127.0.7.254": 20, "127.0.7.255": 20, "127.0.8.0": 20, "127.0.8.1": 20,
                       "127.0.8.2": 20}


def test_unix_socket_works(folder):
    path = folder / "s"
    with FakeServer(well_behaved, path=str(path)):
        result = stress("--server", f"unix:{path}", "--clients", 50, "--hold", "0s")
    assert result.code == 0
    assert bins(result.report) == {"up": 50}
    assert result.report["server"]["pid"] == os.getpid()


# --- out of reach, wrong usage ------------------------------------------------------------------


def as_nobody():
    """Root may raise a hard limit; somebody else may not."""
    return {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}


def test_too_few_descriptors_is_known_before_the_first_packet():
    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))

    with FakeServer(well_behaved) as server:
        result = plain("--server", f"127.0.0.1:{server.port}", "--clients", 500,
                       preexec_fn=few_descriptors, **as_nobody())
        assert result.returncode == 3
        assert result.stderr.startswith("cliser-stress: ")
        assert "descriptors" in result.stderr and "300" in result.stderr
        assert result.stdout == ""
        assert server.sessions == []
        # The message says what would do.
        fitting = int(re.search(r"at most (\d+)", result.stderr).group(1))
        assert plain("--server", f"127.0.0.1:{server.port}", "--clients", fitting, "--hold", "0s",
                     preexec_fn=few_descriptors, **as_nobody()).returncode == 0


def test_too_few_ports_is_known_before_the_first_packet():
    port_range = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first, last = map(int, port_range.split())
    ports = last - first + 1
    with FakeServer(well_behaved) as server:
        result = plain("--server", f"127.0.0.1:{server.port}", "--clients", ports + 1, "--sources",
                       "127.0.1.1")
        assert result.returncode == 3
        assert f"{ports + 1} ports" in result.stderr
        assert "use 2 --sources" in result.stderr
        assert server.sessions == []


def test_foreign_source_is_known_before_the_first_packet():
    with FakeServer(well_behaved) as server:
        result = plain("--server", f"127.0.0.1:{server.port}", "--clients", 10, "--sources",
                       "192.0.2.1-192.0.2.9")
        assert result.returncode == 3
        assert "192.0.2.1" in result.stderr
        assert server.sessions == []


def test_absurd_numbers_are_out_of_reach_not_out_of_memory():
    result = plain("--clients", 999_999_999)
    assert result.returncode == 3
    assert "memory" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("args", [
    ["--clients", "0"],
    ["--clients", "many"],
    ["--clients", "-5"],
    ["--clients"],
    ["--rate", "0"],
    ["--rate", "10/m"],
    ["--rate", "/s"],
    ["--inflight", "0"],
    ["--hold", "10"],
    ["--hold", "10x"],
    ["--timeout", "0s"],
    ["--silent", "101"],
    ["--silent", "5.x"],
    ["--silent", ""],
    ["--silent", "."],
    ["--silent", "1.2345"],
    ["--password", ""],
    ["--password", "a\nb"],
    ["--password", "x" * 129],
    ["--id-prefix", "a b"],
    ["--id-prefix", "x" * 62, "--clients", "1000"],
    ["--sources", "127.0.0.9-127.0.0.1"],
    ["--sources", "::1"],
    ["--server", "127.0.0.1"],
    ["--server", "127.0.0.1:0"],
    ["--server", "unix:"],
    ["--no-such-option"],
    ["leftover"],
])
def test_wrong_usage_is_2(args):
    result = plain(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.search(r"cliser-stress: ", result.stderr)


def test_json_file_that_cannot_be_written_is_known_before_the_run():
    with FakeServer(well_behaved) as server:
        result = plain("--server", f"127.0.0.1:{server.port}", "--clients", 5, "--json",
                       "/nowhere/x")
        assert result.returncode == 1
        assert "/nowhere/x" in result.stderr
        assert server.sessions == []


def test_help_and_version():
    shown = plain("--help")
    assert shown.returncode == 0 and shown.stderr == ""
    for option in ("server", "clients", "rate", "inflight", "hold", "churn", "password",
                   "id-prefix", "sources", "silent", "json", "help", "version"):
        assert f"--{option}" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    version = plain("-V")
    assert version.returncode == 0
    assert re.fullmatch(r"cliser-stress \d+\.\d+\.\d+\n", version.stdout)


# --- interrupted --------------------------------------------------------------------------------


def interrupted(server, *args, when, number=signal.SIGINT):
    """Starts a run, waits until when(), sends the signal, and returns what stress() returns."""
    process = subprocess.Popen([str(STRESS), "--server", f"127.0.0.1:{server.port}", "--json", "-",
                                *map(str, args)], stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(when)
        process.send_signal(number)
        out, err = process.communicate(timeout=limit(10))
    finally:
        process.kill()
        process.wait()
    report = json.loads(out)
    check_sum(report)
    return Result(process.returncode, report, out, err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_while_connecting_reports_everyone(number):
    async def behave(session):
        await (session.stay() if session.number % 2 else well_behaved(session))

    with FakeServer(behave) as server:
        result = interrupted(server, "--clients", 1000, "--rate", "100/s", number=number,
                             when=lambda: len(server.sessions) >= 30)
    # Nothing failed: those who wait and those whose turn had not come are no failures.
    assert result.code == 0
    account = bins(result.report)
    assert set(account) == {"up", "interrupted", "not_started"}
    assert account["up"] >= 10 and account["interrupted"] >= 10
    assert result.report["achieved"]["interrupted"] is True
    assert "interrupted" in result.err and "clients asked for" in result.err


def test_interrupt_while_holding_is_no_failure():
    with FakeServer(well_behaved) as server:
        result = interrupted(server, "--clients", 20, "--hold", "1h",
                             when=lambda: sum(s.id is not None for s in server.sessions) == 20)
    assert result.code == 0
    assert bins(result.report) == {"up": 20}


def test_interrupt_after_a_failure_is_1():
    async def behave(session):
        if session.number == 0:
            session.send(harness.REFUSALS[450])
        else:
            await well_behaved(session)

    with FakeServer(behave) as server:
        result = interrupted(server, "--clients", 20, "--hold", "1h",
                             when=lambda: sum(s.id is not None for s in server.sessions) == 19)
    assert result.code == 1


# --- what is shown ------------------------------------------------------------------------------


def test_table_goes_to_stdout_and_fits_a_terminal(folder):
    path = folder / "report.json"
    with FakeServer(impatient) as server:
        result = plain("-s", f"127.0.0.1:{server.port}", "-n", 300, "-r", 1000, "-d", "500ms",
                       "-q", 10, "-j", path)
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    # Not a terminal: no live line, no colours.
    assert result.stderr == ""
    assert "\r" not in result.stdout and "\033" not in result.stdout
    assert len(lines) < 40 and max(map(len, lines)) <= 80
    assert lines[0].startswith("server ") and lines[1].startswith("asked ")
    assert lines[2].startswith("achieved ") and "ok" in lines[3]
    report = json.loads(path.read_text())
    assert report["schema"] == 1
    check_sum(report)


def on_terminal(server, env):
    """Runs three seconds on a terminal and returns everything that was written to it."""
    master, slave = pty.openpty()
    process = subprocess.Popen([str(STRESS), "-s", f"127.0.0.1:{server.port}", "-n", "30", "-d",
                                "2s"], stdin=slave, stdout=slave, stderr=slave,
                               env={**os.environ, "TERM": "xterm", **env})
    os.close(slave)
    written = b""
    end = time.monotonic() + limit(20)
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(master, 4096)
        except OSError:
            break
        written += chunk
    os.close(master)
    process.wait(limit(5))
    return written.decode()


def test_live_line_on_a_terminal_only_and_no_color_is_heeded():
    async def behave(session):
        if session.number == 0:
            session.send(harness.REFUSALS[450])
        else:
            await well_behaved(session)

    with FakeServer(behave) as server:
        coloured = on_terminal(server, {"NO_COLOR": ""})
    with FakeServer(behave) as server:
        uncoloured = on_terminal(server, {"NO_COLOR": "1"})
    for text in (coloured, uncoloured):
        assert re.search(r"\rholding [^\r]*29 up", text)
        assert re.search(r"\r[^\r]*1 failed", text)
        # The last thing that happens to the live line is that it goes away.
        assert re.search(r"\r {79}\rserver ", text)
    assert "\033[31m" in coloured
    assert "\033" not in uncoloured


# --- cliserd ------------------------------------------------------------------------------------


def test_cliserd_holds_its_clients(start_server):
    server = start_server({"keepalive": {"interval": "200ms"}})
    result = stress("--clients", 500, "--hold", "2s", "--password", harness.PASSWORD, "--id-prefix",
                    "web:", port=server.port)
    assert result.code == 0
    assert bins(result.report) == {"up": 500}
    assert result.report["server"]["pid"] == server.pid
    assert result.report["server"]["before"]["rss_bytes"] > 0
    assert result.report["server"]["bytes_per_client"] is not None
    # Ten intervals; the first 100 comes at a random part of its interval.
    assert 500 * 8 <= result.report["keepalive"]["answered"] <= 500 * 12
    assert set(server.rows()) == {f"web:{n}" for n in range(1, 501)}


def test_cliserd_refuses_a_wrong_password(start_server):
    server = start_server()
    result = stress("--clients", 20, "--password", "wrong", port=server.port)
    assert result.code == 1
    assert bins(result.report) == {"refused": {"410": 20}}


def test_cliserd_drops_the_silent_ones(start_server):
    server = start_server({"keepalive": {"interval": "100ms", "misses": "2",
                                         "require_reply": "yes"}})
    result = stress("--clients", 100, "--silent", 30, "--hold", "2s", "--password",
                    harness.PASSWORD, port=server.port)
    assert result.code == 0
    assert bins(result.report) == {"up": 70, "silent_dropped": {"408": 30}}


def test_cliserd_takes_a_churn(start_server):
    server = start_server()
    result = stress("--clients", 3000, "--churn", "--inflight", 100, "--password", harness.PASSWORD,
                    port=server.port)
    assert result.code == 0
    assert bins(result.report) == {"up": 3000}
    wait_until(lambda: all(row["cstatus"] == 0 for row in server.rows().values()))
    assert len(server.rows()) == 3000
