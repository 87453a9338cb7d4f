"""
cliser-agent against a server that plays a part: what it answers, what it acts on, and how it comes
back.

The rule above all others: it acts on a 130 in a session that reached 140, and on nothing else. Each
agent here has a command that leaves a mark, and every test that gives no order ends by looking for
it. Pauses are read from the log, not waited for.
"""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from fake_server import PASSWORD, FakeServer
from harness import (BIN, SANITIZER_REPORTS, holds_for, limit, needs_root, wait_until,
                     write_secret)

PROGRAM = BIN / "cliser-agent"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(),
                                reason=f"no cliser-agent in {BIN}: build first, or set CLISER_BIN")

# Every refusal in docs/protocol.md, "Refusals", with what the client's next try is to be.
REFUSALS = {
    "400: protocol error": "long_pause",
    "408: timed out": "back_off",
    "410: wrong password": "long_pause",
    "420: invalid ID": "long_pause",
    "421: ID already connected": "back_off",
    "422: ID not allowed": "long_pause",
    "429: too many from this address": "back_off",
    "430: disconnected by operator": "long_pause",
    "431: replaced": "long_pause",
    "450: server full": "back_off",
    "451: registry unavailable": "back_off",
    "460: server restarting": "spread",
    "499: of a newer server": "back_off",
}
PAUSES_MS = {"back_off": (0, 1000), "spread": (0, 60000), "long_pause": (60000, 75000)}


class Agent:
    """One running agent and what it says."""

    def __init__(self, args, wrap=(), cwd=None):
        self.proc = subprocess.Popen([*wrap, PROGRAM, *map(str, args)], cwd=cwd,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.lines = []
        self.code = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.proc.stderr:
            self.lines.append(line.rstrip("\n"))

    def log(self):
        return "\n".join(self.lines)

    def found(self, pattern):
        return re.findall(pattern, self.log())

    def wait_log(self, pattern, count=1, seconds=5.0):
        """Waits until the pattern is there that often, and returns the last match."""
        wait_until(lambda: len(self.found(pattern)) >= count, seconds, f"the log line {pattern}")
        return self.found(pattern)[count - 1]

    def wait_pause(self, count=1):
        """The count-th retry that the agent has announced: (milliseconds, kind, tries)."""
        pause, kind, tries = self.wait_log(r" retry pause_ms=(\d+) kind=(\w+) tries=(\d+)", count)
        return int(pause), kind, int(tries)

    def wait_exit(self, seconds=5.0):
        self.code = self.proc.wait(limit(seconds))
        # A command that goes on may still hold the pipe.
        self._reader.join(0.2 if self.found("command_left") else limit(5))
        return self.code

    def stop(self, number=signal.SIGTERM):
        self.proc.send_signal(number)
        return self.wait_exit()


class Bench:
    """What a test works with: a fake server, a password file, and the mark of the command."""

    def __init__(self, folder, server):
        self.folder = folder
        self.server = server
        self.mark = folder / "mark"
        self.password_file = folder / "password"
        write_secret(self.password_file, PASSWORD + "\n")
        self.command = f"echo acted >> {self.mark}"
        self.agents = []

    def start(self, *args, server=None, command=True, cid="web-1", wrap=()):
        given = ["--server", server or self.server.name, "--id", cid, "--password-file",
                 self.password_file]
        if command:
            given += ["--on-shutdown", self.command if command is True else command]
        return self.run(*given, *args, wrap=wrap)

    def run(self, *args, wrap=()):
        agent = Agent(args, wrap, self.folder)
        self.agents.append(agent)
        return agent

    def connected(self, *args, **options):
        """An agent that has reached 140, and its session."""
        agent = self.start(*args, **options)
        session = self.server.connected("web-1")
        agent.wait_log(" connected ")
        return agent, session

    def acted(self):
        return self.mark.read_text().count("acted") if self.mark.exists() else 0

    def wait_acted(self, times=1):
        wait_until(lambda: self.acted() >= times, 5, f"the command to run {times} times")
        assert self.acted() == times


@pytest.fixture
def bench(folder):
    with FakeServer() as server:
        bench = Bench(folder, server)
        yield bench
        for agent in bench.agents:
            if agent.proc.poll() is None:
                assert agent.stop() == 0, agent.log()
            assert not any(report in agent.log() for report in SANITIZER_REPORTS), agent.log()
            assert PASSWORD not in agent.log()


@pytest.fixture(scope="module", autouse=True)
def silent_handshakes(tmp_path_factory):
    """
    Three agents whose handshakes stop, before TLS, at the 110 and at the 140. They are given up
    after 30 s, which is too long to wait for in one test: they wait beside all others.
    """
    if not PROGRAM.exists():
        yield None
        return
    with FakeServer() as silent, FakeServer() as stalled:
        folder = tmp_path_factory.mktemp("silent")
        bench = Bench(folder, None)
        agents = [bench.start(server=silent.name), bench.start(server=stalled.name),
                  bench.start("--tls", server=silent.name)]
        silent.accept()
        silent.accept()
        session = stalled.accept()
        session.send("110: qual a senha")
        session.expect(PASSWORD.encode() + b"\n")
        session.send("120: qual o ID")
        session.expect(b"web-1\n")
        yield time.monotonic(), agents, folder / "mark"
        for agent in agents:
            if agent.proc.poll() is None:
                agent.stop()


# --- the session --------------------------------------------------------------------------------


def test_answers_are_exactly_those_of_the_protocol(bench):
    agent, session = bench.connected()
    session.expect_silence(0.1)
    for _ in range(3):
        session.keep_alive()
    assert session.received == PASSWORD.encode() + b"\nweb-1\n100\n100\n100\n"


def test_only_the_three_digits_decide(bench):
    bench.start()
    session = bench.server.accept()
    session.send(b"110\n")
    session.expect(PASSWORD.encode() + b"\n")
    session.send(b"120 who?\r\n")
    session.expect(b"web-1\n")
    session.send(b"140/130: shutdown sys\n100100\n")
    session.expect(b"100\n")
    assert bench.acted() == 0


def test_lines_may_come_byte_by_byte_and_together(bench):
    bench.start()
    session = bench.server.accept()
    session.drip(b"110: qual a senha\r\n")
    session.expect(PASSWORD.encode() + b"\n")
    session.send(b"120: qual o ID\r\n140: Connected\r\n100: keep alive\r\n100: keep")
    session.expect(b"web-1\n100\n")
    session.send(b" alive\r\n")
    session.expect(b"100\n")


def test_codes_of_newer_servers_are_ignored(bench):
    agent, session = bench.connected()
    session.send("150: something new", "999: or this", "0130: shutdown sys")
    session.keep_alive()
    assert bench.acted() == 0


@pytest.mark.parametrize("address", [("::1", 0), "unix"])
def test_server_may_be_ipv6_or_a_unix_socket(bench, folder, address):
    with FakeServer(str(folder / "sock") if address == "unix" else address) as server:
        bench.start(server=server.name)
        server.connected("web-1").keep_alive()


def test_name_is_tried_at_all_its_addresses(bench):
    """Where localhost is ::1 first, the fake server is not there."""
    agent = bench.start(server=f"localhost:{bench.server.port}")
    bench.server.connected("web-1").keep_alive()
    assert not agent.found(" retry ")


def test_keepalive_options_notice_a_dead_server(bench):
    agent, session = bench.connected()
    with session.peer_options(agent.proc.pid) as sock:
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(tcp, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(tcp, socket.TCP_KEEPIDLE) == 30
        assert sock.getsockopt(tcp, socket.TCP_KEEPINTVL) == 10
        # 30 s and three probes; the kernel counts no probes when this is set.
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 60000


def test_server_that_never_reads_cannot_fill_the_agents_memory(bench):
    agent, session = bench.connected()
    session.sock.settimeout(limit(10))
    with pytest.raises((ConnectionError, BrokenPipeError)):
        for _ in range(200):
            session.sock.sendall(b"100: keep alive\r\n" * 10000)
    agent.wait_log(" disconnected ")


# --- the order ----------------------------------------------------------------------------------


def test_order_is_answered_logged_and_acted_on(bench):
    agent, session = bench.connected()
    session.order()
    bench.wait_acted()
    agent.wait_log(" shutdown_ordered ")
    agent.wait_log(" command_ended .*status=0")
    session.keep_alive()
    assert bench.acted() == 1


def test_answer_leaves_before_the_command_runs(bench):
    """The command kills the agent at once, so what was not sent before it is never sent."""
    for _ in range(10):
        agent = bench.start(command="kill -9 $PPID")
        session = bench.server.connected("web-1")
        session.order()
        session.expect_end()
        assert agent.wait_exit() == -signal.SIGKILL


@pytest.mark.parametrize("ending", ["refusal", "end", "reset"])
def test_order_counts_although_the_session_ends_right_after_it(bench, ending):
    agent, session = bench.connected()
    if ending == "refusal":
        session.send("130: shutdown sys", "460: server restarting")
        session.expect(b"130\n")
    else:
        session.order()
        session.reset() if ending == "reset" else session.close()
    bench.wait_acted()
    agent.wait_log(" retry ")
    assert bench.acted() == 1


def test_delay_passes_before_the_command_and_keep_alives_are_answered(bench):
    agent, session = bench.connected("--shutdown-delay", "500ms")
    start = time.monotonic()
    session.order()
    agent.wait_log(" shutdown_ordered delay=500ms")
    while not bench.acted() and time.monotonic() - start < limit(5):
        session.keep_alive()
    assert time.monotonic() - start >= 0.5
    assert bench.acted() == 1


def test_keep_alives_are_answered_while_the_command_runs(bench, folder):
    go_on = folder / "go-on"
    agent, session = bench.connected(
        command=f"{bench.command}; until test -e {go_on}; do sleep 0.02; done; exit 7")
    session.order()
    bench.wait_acted()
    for _ in range(5):
        session.keep_alive()
    assert not agent.found(" command_ended ")
    go_on.touch()
    agent.wait_log(" command_ended .*status=7")
    session.keep_alive()


def test_repeated_order_is_answered_and_not_acted_on_twice(bench):
    agent, session = bench.connected("--shutdown-delay", "300ms")
    session.order()
    session.order()
    session.send("130: shutdown sys", "130: shutdown sys")
    session.expect(b"130\n130\n")
    agent.wait_log(" command_ended ")
    session.order()
    session.keep_alive()
    holds_for(lambda: bench.acted() == 1, 0.4, "one run")
    assert len(agent.found(" shutdown_ordered ")) == 1


def test_order_in_a_new_session_while_the_delay_runs_is_not_another(bench):
    agent, session = bench.connected("--shutdown-delay", "3s")
    session.order()
    session.close()
    again = bench.server.connected("web-1")
    again.order()
    agent.wait_log(" shutdown_repeated ")
    agent.wait_log(" command_ended ")
    again.keep_alive()
    assert bench.acted() == 1
    assert len(agent.found(" command_started ")) == 1


def test_order_in_a_new_session_acts_again(bench):
    agent, session = bench.connected()
    for times in (1, 2):
        session.order()
        agent.wait_log(" command_ended ", times)
        bench.wait_acted(times)
        session.close()
        session = bench.server.connected("web-1")


def test_lost_session_does_not_take_the_order_back(bench):
    agent, session = bench.connected("--shutdown-delay", "300ms")
    session.order()
    session.reset()
    bench.server.close()
    bench.wait_acted()


def test_without_a_command_it_says_what_it_would_do(bench):
    agent, session = bench.connected(command=None)
    session.order()
    line = agent.wait_log(".*would be shut down now.*")
    assert "--on-shutdown" in line
    session.keep_alive()


def test_end_of_the_command_is_logged(bench):
    agent, session = bench.connected(command="kill -TERM $$")
    session.order()
    agent.wait_log(" error command_ended .*signal=15")


def test_command_has_a_clean_environment(bench, folder):
    """A shell as from a login: no ignored signals, nothing of the agent's but its output."""
    report = folder / "report"
    agent, session = bench.connected(
        command=f"grep -E '^Sig(Ign|Blk)' /proc/self/status > {report}; "
                f"ls -l /proc/self/fd >> {report}; echo done >> {report}")
    session.order()
    wait_until(lambda: report.exists() and "done" in report.read_text())
    text = report.read_text()
    assert not int(re.search(r"SigIgn:\s+(\w+)", text).group(1), 16) & (1 << (signal.SIGPIPE - 1))
    assert int(re.search(r"SigBlk:\s+(\w+)", text).group(1), 16) == 0
    assert "socket:" not in text and "eventpoll" not in text
    assert re.search(r" 0 -> /dev/null", text)


# --- nothing else acts --------------------------------------------------------------------------

BEFORE_140 = {
    "await_password": [],
    "await_id": ["110: qual a senha"],
    "await_connected": ["110: qual a senha", "120: qual o ID"],
}


@pytest.mark.parametrize("state", BEFORE_140)
def test_order_before_140_is_a_violation(bench, state):
    agent = bench.start()
    session = bench.server.accept()
    session.send(*BEFORE_140[state], "130: shutdown sys")
    pause, kind, _ = agent.wait_pause()
    assert kind == "long_pause" and pause >= 60000
    assert b"130" not in session.received
    assert agent.stop() == 0
    assert bench.acted() == 0 and not agent.found(" shutdown")


@pytest.mark.parametrize("line", [b" 130: shutdown sys\r\n", b"13\r\n", b"hello\r\n", b"\r\n",
                                  b"13\x000: shutdown sys\r\n",
                                  b"x" * 300 + b"130: shutdown sys\r\n", b"110: again\r\n",
                                  b"120: again\r\n", b"140: again\r\n"])
def test_what_the_protocol_does_not_have_ends_the_session(bench, line):
    agent, session = bench.connected()
    session.send(line + b"130: shutdown sys\r\n")
    session.expect_end()
    pause, kind, _ = agent.wait_pause()
    assert kind == "long_pause" and pause >= 60000
    assert agent.stop() == 0
    assert bench.acted() == 0 and not agent.found(" shutdown")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_refusal_acts_and_each_has_its_pause(bench, refusal):
    """Before 140, and after: that a session reached it makes no difference to the kind of pause."""
    for connected in (False, True):
        agent = bench.start()
        session = bench.server.connected("web-1") if connected else bench.server.accept()
        session.refuse(refusal)
        session.expect_end()
        agent.wait_log(rf" {'disconnected' if connected else 'refused'} code={refusal[:3]} ")
        pause, kind, _ = agent.wait_pause()
        low, high = PAUSES_MS[REFUSALS[refusal]]
        assert kind == REFUSALS[refusal]
        assert low <= pause <= high
        assert agent.stop() == 0
    assert bench.acted() == 0


@pytest.mark.parametrize("state", [*BEFORE_140, "connected"])
@pytest.mark.parametrize("ending", ["end", "reset", "vanish"])
def test_no_loss_acts(bench, state, ending):
    agent = bench.start()
    session = bench.server.accept()
    session.send(*BEFORE_140.get(state, [*BEFORE_140["await_connected"], "140: Connected"]))
    wanted = [PASSWORD.encode() + b"\n", b"web-1\n"][:len(BEFORE_140.get(state, "ab"))]
    session.expect(b"".join(wanted))
    if ending == "vanish":
        session.expect_silence(0.3)
    else:
        session.reset() if ending == "reset" else session.close()
        pause, kind, _ = agent.wait_pause()
        assert kind == "back_off" and pause <= 1000
    assert agent.stop() == 0
    assert bench.acted() == 0


def test_line_cut_off_by_the_end_of_the_stream_does_not_act(bench):
    agent, session = bench.connected()
    session.send(b"130: shutdown sys")
    session.close()
    agent.wait_pause()
    assert agent.stop() == 0
    assert bench.acted() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_stop_it_do_not_act(bench, number):
    agent, session = bench.connected()
    assert agent.stop(number) == 0
    session.expect_end()
    assert bench.acted() == 0
    agent = bench.start(server="127.0.0.1:1")
    agent.wait_pause()
    assert agent.stop(number) == 0
    assert bench.acted() == 0


def test_sighup_neither_acts_nor_stops_it(bench):
    agent, session = bench.connected()
    agent.proc.send_signal(signal.SIGHUP)
    agent.wait_log(" signal ")
    session.keep_alive()
    assert bench.acted() == 0


def test_stopped_during_the_delay_it_does_not_act(bench):
    agent, session = bench.connected("--shutdown-delay", "1h")
    session.order()
    agent.wait_log(" shutdown_ordered ")
    assert agent.stop() == 0
    assert agent.found(" shutdown_abandoned ")
    assert bench.acted() == 0


def test_stopped_while_the_command_runs_it_leaves_it_running(bench, folder):
    go_on = folder / "go-on"
    agent, session = bench.connected(
        command=f"touch {folder}/began; until test -e {go_on}; do sleep 0.02; done; "
                f"{bench.command}")
    session.order()
    wait_until((folder / "began").exists)
    # As from a terminal: the whole process group of the agent.
    os.killpg(agent.proc.pid, signal.SIGINT)
    assert agent.wait_exit() == 0
    assert agent.found(" command_left ")
    go_on.touch()
    bench.wait_acted()


# --- coming back --------------------------------------------------------------------------------


def test_pause_doubles_until_a_session_lasts(bench):
    agent = bench.start()
    for tries, ceiling in enumerate((1000, 2000, 4000), 1):
        session = bench.server.accept(seconds=6)
        session.send(*BEFORE_140["await_connected"])  # all but 140 is no session
        session.expect(PASSWORD.encode() + b"\nweb-1\n")
        session.close()
        pause, kind, counted = agent.wait_pause(tries)
        assert (kind, counted) == ("back_off", tries)
        assert pause <= ceiling
    # Welcomed and dropped: of a server that dies at once there is nothing to be gained by hurrying.
    session = bench.server.accept(seconds=6)
    session.shake_hands("web-1")
    agent.wait_log(" connected ")
    session.close()
    assert agent.wait_pause(4)[1:] == ("back_off", 4)
    session = bench.server.accept(seconds=10)
    session.shake_hands("web-1")
    session.send(b"100: keep alive\r\n")
    session.expect(b"100\n")
    session.close()
    pause, kind, counted = agent.wait_pause(5)
    assert (kind, counted) == ("back_off", 1)
    assert pause <= 1000


def test_pause_is_kept(bench):
    """Three agents, so that at least one pause is long enough to tell."""
    waited = []
    for _ in range(3):
        agent = bench.start()
        bench.server.accept().close()
        pause, _, _ = agent.wait_pause()
        start = time.monotonic()
        bench.server.accept()
        waited.append((pause, (time.monotonic() - start) * 1000))
        assert agent.stop() == 0
    for pause, took in waited:
        assert took > pause - 150, waited
        assert took < pause + limit(2) * 1000, waited


def test_pauses_are_jittered(bench):
    pauses = set()
    for _ in range(5):
        agent = bench.start(server="127.0.0.1:1")
        pauses.add(agent.wait_pause()[0])
        assert agent.stop() == 0
    assert len(pauses) > 1


def test_long_pause_is_not_cut_short(bench):
    agent = bench.start()
    bench.server.accept().refuse("410: wrong password")
    agent.wait_pause()
    bench.server.accept_nobody(1.5)


def test_refused_connection_backs_off(bench):
    agent = bench.start(server="127.0.0.1:1")
    agent.wait_log(" not_connected reason=.*refused")
    pause, kind, _ = agent.wait_pause()
    assert kind == "back_off" and pause <= 1000


def test_name_that_does_not_resolve_backs_off(bench):
    agent = bench.start(server="no-such-host.invalid:1111")
    agent.wait_log(" not_connected reason=.*no-such-host.invalid", seconds=30)
    assert agent.wait_pause()[1] == "back_off"


def test_missing_unix_socket_backs_off(bench):
    agent = bench.start(server="unix:nothing-here")
    assert agent.wait_pause()[1] == "back_off"


# --- one session --------------------------------------------------------------------------------


def test_once_ends_with_0_when_the_command_did(bench):
    agent, session = bench.connected("--once")
    session.keep_alive()
    session.order()
    assert agent.wait_exit() == 0
    assert bench.acted() == 1


def test_once_ends_with_1_when_the_command_failed(bench):
    agent, session = bench.connected("--once", command="exit 3")
    session.order()
    assert agent.wait_exit() == 1
    assert agent.found(" command_ended .*status=3")


def test_once_without_a_command_ends_with_0(bench):
    agent, session = bench.connected("--once", command=None)
    session.order()
    assert agent.wait_exit() == 0
    assert agent.found("would be shut down now")


def test_once_acts_although_the_session_is_lost_in_the_delay(bench):
    agent, session = bench.connected("--once", "--shutdown-delay", "300ms")
    session.order()
    session.reset()
    assert agent.wait_exit() == 0
    assert bench.acted() == 1
    bench.server.accept_nobody(0.1)


def test_once_does_not_come_back_and_says_why(bench):
    agent, session = bench.connected("--once")
    session.close()
    assert agent.wait_exit() == 1
    assert agent.found("(?m)^cliser-agent: .*closed the connection")

    agent = bench.start("--once")
    bench.server.accept().refuse("410: wrong password")
    assert agent.wait_exit() == 1
    assert agent.found("(?m)^cliser-agent: .*wrong password")

    agent = bench.start("--once", server="127.0.0.1:1")
    assert agent.wait_exit() == 1
    assert agent.found("(?m)^cliser-agent: .*refused")

    bench.server.accept_nobody(0.1)
    assert bench.acted() == 0


def test_once_stopped_by_a_signal_ends_with_0(bench):
    agent, session = bench.connected("--once")
    assert agent.stop() == 0
    assert bench.acted() == 0


# --- configuration ------------------------------------------------------------------------------


def write_ini(bench, text):
    path = bench.folder / "agent.ini"
    path.write_text(text)
    return path


def run_to_the_end(*args, cwd=None, wrap=()):
    return subprocess.run([*wrap, PROGRAM, *map(str, args)], capture_output=True, text=True,
                          cwd=cwd, stdin=subprocess.DEVNULL, timeout=limit(10))


def test_file_has_the_options_names(bench):
    ini = write_ini(bench, f"""
        ; comments are allowed
        [agent]
        server = {bench.server.name}
        id = from-file
        password_file = {bench.password_file}
        on_shutdown = {bench.command}
        shutdown_delay = 100ms
        once = yes
        """.replace("\n        ", "\n"))
    agent = bench.run(ini)
    bench.server.connected("from-file").order()
    assert agent.wait_exit() == 0
    assert agent.found("delay=100ms") and bench.acted() == 1


def test_dashes_and_underscores_in_keys_are_the_same(bench):
    ini = write_ini(bench, f"[agent]\nserver = {bench.server.name}\nid = web-1\n"
                           f"password-file = {bench.password_file}\non-shutdown = true\n"
                           "shutdown-delay = 10ms\nonce = yes\n")
    agent = bench.run(ini)
    bench.server.connected("web-1").order()
    assert agent.wait_exit() == 0
    assert agent.found("delay=10ms")


def test_options_count_more_than_the_file(bench):
    ini = write_ini(bench, "[agent]\nserver = 192.0.2.1:1\nid = from-file\n"
                           "password_file = /nonexistent\non_shutdown = exit 1\n"
                           "shutdown_delay = 1h\n")
    agent = bench.run(ini, "-s", bench.server.name, "-i", "from-option", "-p", bench.password_file,
                      "-x", bench.command, "-d", "10ms", "-1")
    bench.server.connected("from-option").order()
    assert agent.wait_exit() == 0
    assert bench.acted() == 1


def test_id_is_the_hosts_name_by_default(bench):
    agent = bench.run("--server", bench.server.name, "--password-file", bench.password_file)
    bench.server.connected(socket.gethostname()).keep_alive()


@needs_root
def test_hosts_name_that_is_no_id_is_an_error_that_helps(bench):
    result = run_to_the_end("--server", bench.server.name, "--password-file", bench.password_file,
                            wrap=["unshare", "--uts", "sh", "-c",
                                  'printf a+b > /proc/sys/kernel/hostname; exec "$@"', "sh"])
    assert result.returncode == 2
    assert "--id" in result.stderr and "a+b" in result.stderr and "A-Z" in result.stderr


def test_password_is_the_first_line_of_its_file(bench):
    write_secret(bench.password_file, PASSWORD.encode() + b"\r\nnot this\n")
    bench.connected()


def test_every_mistake_of_a_file_is_reported(bench):
    ini = write_ini(bench, "[agent]\nserver = nowhere\nid = a b\nunknown = 1\n"
                           "shutdown_delay = soon\nonce = perhaps\n"
                           "password_file = /nonexistent/password\n[other]\nx = 1\n")
    result = run_to_the_end(ini)
    assert result.returncode == 2
    for line, text in {2: "server: .*HOST|server: .*:1111", 3: "id: .*A-Z",
                       4: "unknown key unknown", 5: "shutdown_delay: .*soon",
                       6: "once: .*yes or no", 7: "password_file: .*/nonexistent/password",
                       8: "unknown section"}.items():
        assert re.search(rf"(?m)^cliser-agent: {re.escape(str(ini))}:{line}: .*({text})",
                         result.stderr), (line, result.stderr)
    assert len(result.stderr.splitlines()) == 7


@pytest.mark.parametrize("args, text", [
    ([], "--server"),
    (["--server", "127.0.0.1:1", "--id", "a"], "--password-file"),
    (["--server", "127.0.0.1"], "--server: .*:1111"),
    (["--server", "::1:1111"], r"--server: .*\[2001"),
    (["--server", "127.0.0.1:0"], "--server: "),
    (["--id", ""], "--id: "),
    (["--id", "x" * 65], "--id: .*1 to 64"),
    (["--password-file", "/"], "--password-file: "),
    (["--shutdown-delay", "5"], "--shutdown-delay: .*ms, s, m"),
    (["--shutdown-delay", "-5s"], "--shutdown-delay: "),
    (["--once=yes"], "--once=yes should have no value"),
    (["--no-such-option"], "--no-such-option is no option; --help"),
    (["-z"], "-z is no option; --help"),
    (["-1z"], "-z is no option; --help"),
    (["--server"], "--server needs a value"),
    (["--tls=yes"], "--tls=yes should have no value"),
    (["--ca", "file"], "--ca: .*tls = yes"),
    (["no-such-file.ini"], "no-such-file.ini"),
    (["one.ini", "two.ini"], "two.ini"),
])
def test_wrong_usage_says_what_would_be_right(folder, args, text):
    result = run_to_the_end(*args, cwd=folder)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.search(rf"(?m)^cliser-agent: .*{text}", result.stderr), result.stderr
    assert all(line.startswith("cliser-agent: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize("content", [b"", b"\nsecond line\n", b"x" * 129 + b"\n", b"a\0b\n"])
def test_password_that_cannot_be_one_is_refused(bench, content):
    write_secret(bench.password_file, content)
    result = run_to_the_end("-s", bench.server.name, "-i", "a", "-p", bench.password_file)
    assert result.returncode == 2
    assert "cliser-agent: --password-file: " in result.stderr
    assert "x" * 129 not in result.stderr


def test_command_that_inih_would_cut_is_refused(bench):
    """"sync ; poweroff" must not become "sync"."""
    ini = write_ini(bench, f"[agent]\nserver = {bench.server.name}\nid = a\n"
                           f"password_file = {bench.password_file}\n"
                           "on_shutdown = sync ; poweroff\n")
    result = run_to_the_end(ini)
    assert result.returncode == 2
    assert f"{ini}:5: on_shutdown would be cut" in result.stderr


def test_help_and_version():
    result = run_to_the_end("--help")
    assert result.returncode == 0 and result.stderr == ""
    for option in ("server", "id", "password-file", "on-shutdown", "shutdown-delay", "once", "tls",
                   "ca", "cert", "key", "help", "version"):
        assert f"--{option} " in result.stdout
    assert run_to_the_end("-h").stdout == result.stdout

    result = run_to_the_end("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"cliser-agent \d+\.\d+\.\d+\n", result.stdout)
    assert run_to_the_end("-V").stdout == result.stdout


# --- with the real server, and what took 30 s ---------------------------------------------------


def test_real_server_keeps_it_and_stops_without_an_order(start_server, bench):
    server = start_server({"auth": {"password": PASSWORD},
                           "keepalive": {"interval": "50ms", "misses": "2",
                                         "require_reply": "yes"}})
    agent = bench.start(server=f"127.0.0.1:{server.port}")
    server.wait_log(r" connected .*cid=web-1")
    agent.wait_log(" connected ")
    holds_for(lambda: not agent.found(" disconnected "), 0.5, "the session")
    assert server.stop() == 0
    assert agent.wait_pause()[1] == "back_off"
    assert agent.stop() == 0
    assert bench.acted() == 0


def test_handshake_is_given_up_after_30_seconds(silent_handshakes):
    started, agents, mark = silent_handshakes
    for agent in agents:
        left = 30 - (time.monotonic() - started)
        pause, kind, tries = agent.wait_log(r" retry pause_ms=(\d+) kind=(\w+) tries=(\d+)",
                                            seconds=max(left, 0) + 5)
        line = next(line for line in agent.lines if " not_connected " in line)
        assert "in time" in line
        assert (kind, tries) == ("back_off", "1") and int(pause) <= 1000
        stamps = [time_of(line) for line in agent.lines[:2]]
        assert 29 < stamps[1] - stamps[0] < 30 + limit(3)
        assert agent.stop() == 0
    assert not mark.exists()


def time_of(line):
    hours, minutes, seconds = re.match(r"\S+T(\d+):(\d+):([\d.]+)Z", line).groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
