"""
cliserctl says what the server says, in every form it has; and never more: it asks before it shuts
anything down, and its exit status tells scripts how that went. The server is a fake that follows
docs/control.md.
"""

import collections
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

import fake_control
import harness
from fake_control import FakeControl
from harness import limit, needs_root, wait_until, write_secret

CTL = harness.BIN / "cliserctl"

pytestmark = pytest.mark.skipif(not CTL.exists(), reason=f"no cliserctl in {harness.BIN}")

Result = collections.namedtuple("Result", "code out err")


@pytest.fixture
def server(folder):
    with FakeControl(folder / "cliser.sock") as server:
        yield server


@pytest.fixture
def fleet(server):
    """A server with a dozen of web, a database, and a NAS that is down."""
    for number in range(1, 13):
        server.add(f"web-{number}")
    server.add("db-1")
    server.add("nas", connected=False)
    return server


def ctl(*args, folder, env=None, seconds=20, stdin=subprocess.DEVNULL, **popen):
    """Runs cliserctl to its end, without a terminal."""
    done = subprocess.run([str(CTL), *map(str, args)], cwd=folder,
                          env={**os.environ, **(env or {})}, stdin=stdin, capture_output=True,
                          text=True, timeout=limit(seconds), **popen)
    for complaint in harness.SANITIZER_REPORTS:
        assert complaint not in done.stderr, done.stderr
    assert "\033" not in done.stdout + done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith("cliserctl: ") or line.startswith("  "), done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


class Terminal:
    """A cliserctl on a terminal of its own; keeps what was written, and what the screen shows."""

    def __init__(self, *args, folder, columns=80, rows=24, env=None, stdout=None):
        self.raw = b""
        self.columns = columns
        self.rows = rows
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {"TERM": "xterm", "NO_COLOR": "", **(env or {})}
        self.process = subprocess.Popen([str(CTL), *map(str, args)], cwd=folder, stdin=slave,
                                        stdout=stdout or slave, stderr=slave,
                                        start_new_session=True, preexec_fn=self._own_terminal,
                                        env={**os.environ, **env})
        os.close(slave)

    @staticmethod
    def _own_terminal():
        # So that Ctrl-C, typed, becomes a signal.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def read(self, seconds=0.05):
        """Returns False when nobody writes any more."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            chunk = os.read(self.master, 65536)
        except OSError:
            return False
        self.raw += chunk
        return bool(chunk)

    def wait_for(self, pattern, seconds=10):
        """Reads until the pattern is on the screen."""
        end = time.monotonic() + limit(seconds)
        while not re.search(pattern, self.screen()):
            assert self.read() and time.monotonic() < end, f"no {pattern!r} in:\n{self.screen()}"

    def settle(self):
        """Reads to the end of what is being drawn: the pause between two pictures is longer."""
        while select.select([self.master], [], [], 0.05)[0]:
            assert self.read()

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, seconds=20):
        """Reads to the end, and returns the exit code."""
        end = time.monotonic() + limit(seconds)
        while self.read():
            assert time.monotonic() < end, f"does not end:\n{self.screen()}"
        code = self.process.wait(limit(5))
        for complaint in harness.SANITIZER_REPORTS:
            assert complaint not in self.text()
        return code

    def text(self):
        return self.raw.decode("utf-8", "replace")

    def screen(self):
        """All lines, those that have scrolled away as well, as a terminal would show them."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\033\[\d*[A-Za-z]|[^\033]", self.text()):
            if part == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            elif part == "\r":
                column = 0
            elif part.endswith("A") and len(part) > 1:
                up = int(part[2:-1] or 1)
                assert up < self.rows, "the cursor cannot go above the screen"
                row -= up
            elif part == "\033[K":
                lines[row] = lines[row][:column]
            elif part == "\033[J":
                lines[row] = lines[row][:column]
                del lines[row + 1:]
            elif part[0] != "\033":
                if column == self.columns:  # wraps with the next character, not before
                    row, column = row + 1, 0
                    lines.insert(row, "")
                lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + 1:]
                column += 1
        return "\n".join(lines)


def on_terminal(*args, typed=(), **options):
    """Runs to the end; typed is (pattern to wait for, text to type then). Returns (code, screen,
    all that was written)."""
    with Terminal(*args, **options) as terminal:
        for pattern, text in typed:
            terminal.wait_for(pattern)
            terminal.type(text)
        code = terminal.end()
        return code, terminal.screen(), terminal.text()


# --- status, show, ping and the others ----------------------------------------------------------


def test_status(fleet, folder):
    result = ctl("status", folder=folder)
    assert result.code == 0 and result.err == ""
    assert "15,000 of 15,210 registered" in result.out
    assert re.search(r"^server +vm, cliserd 0\.1\.0, up 1h 1m$", result.out, re.M)
    assert re.search(r"^ready +yes$", result.out, re.M)
    fleet.status["ready"] = False
    fleet.status["store"]["healthy"] = False
    result = ctl("status", folder=folder)
    assert re.search(r"^ready +no", result.out, re.M) and "sqlite, failing" in result.out


@pytest.mark.parametrize("args, path, what", [
    (["status"], "/v1/status", None),
    (["show", "web-1"], None, "web-1"),
    (["shutdown-status"], None, "order"),
])
def test_json_is_the_answer_on_one_line(fleet, folder, args, path, what):
    result = ctl(*args, "--json", folder=folder)
    expected = fleet.status
    if what == "web-1":
        expected = fleet.clients["web-1"]
    elif what == "order":
        expected = fleet.order
    assert result.code == 0
    assert result.out.count("\n") == 1 and json.loads(result.out) == expected
    assert list(json.loads(result.out)) == list(expected)
    if what == "web-1":
        assert '"rtt_ms":0.214,' in result.out


def test_show(fleet, folder):
    result = ctl("show", "web-1", folder=folder)
    assert result.code == 0
    assert re.search(r"^state +connected for 3m \d+s, since \d{4}-", result.out, re.M)
    assert re.search(r"^round trip +0\.214 ms$", result.out, re.M)
    result = ctl("show", "nas", folder=folder)
    assert re.search(r"^reason +timed_out$", result.out, re.M) and "round trip" not in result.out


def test_ping(fleet, folder):
    assert ctl("ping", "web-1", folder=folder) == (0, "web-1: 1.25 ms\n", "")
    assert json.loads(ctl("ping", "web-1", "-j", folder=folder).out) == {"rtt_ms": 1.25}
    assert ctl("ping", "nas", folder=folder) == (1, "", "cliserctl: nas is not connected\n")
    fleet.answers["POST", "/v1/clients/db-1/ping"] = (504, {"error": "no answer within 5 s"})
    assert ctl("ping", "db-1", folder=folder) == (1, "", "cliserctl: no answer within 5 s\n")


def test_disconnect_and_forget(fleet, folder):
    assert ctl("forget", "web-1", folder=folder).code == 1
    assert ctl("disconnect", "web-1", folder=folder) == (0, "disconnected web-1\n", "")
    assert ctl("disconnect", "web-1", folder=folder).code == 1
    assert ctl("forget", "web-1", folder=folder) == (0, "forgot web-1\n", "")
    assert "web-1" not in fleet.clients
    assert ctl("forget", "web-1", folder=folder).code == 3


def test_reload(fleet, folder):
    result = ctl("reload", folder=folder)
    assert result.code == 0 and "server.listen" in result.out
    fleet.answers["POST", "/v1/reload"] = (409, {"error": "the configuration is wrong",
                                                 "errors": ["cliser.ini:7: no such key",
                                                            "cliser.ini:9: no number"]})
    result = ctl("reload", folder=folder)
    assert result.code == 1 and result.out == ""
    assert result.err.splitlines() == ["cliserctl: the configuration is wrong",
                                       "  cliser.ini:7: no such key", "  cliser.ini:9: no number"]
    fleet.answers["POST", "/v1/reload"] = (409, {"error": "cliser.ini:7: no such key",
                                                 "errors": ["cliser.ini:7: no such key",
                                                            "cliser.ini:9: no number"]})
    assert ctl("reload", folder=folder).err.splitlines() == [
        "cliserctl: cliser.ini:7: no such key", "  cliser.ini:9: no number"]


def test_ids_and_patterns_are_escaped(fleet, folder):
    fleet.add("a:b@c.d_e-f")
    assert ctl("show", "a:b@c.d_e-f", folder=folder).code == 0
    assert fleet.paths()[-1] == "/v1/clients/a%3Ab%40c.d_e-f"
    for cid in (".", "..", "-", "--help"):
        fleet.add(cid)
        assert f"cid         {cid}\n" in ctl("show", "--", cid, folder=folder).out
        del fleet.clients[cid]
    assert ctl("list", "[!w]*&limit=1", folder=folder).code == 3
    assert "match=%5B%21w%5D%2A%26limit%3D1" in fleet.paths()[-1]
    assert [line.split()[0] for line in ctl("list", "[!wn]*", folder=folder).out.splitlines()] == [
        "CID", "a:b@c.d_e-f", "db-1"]


# --- list ---------------------------------------------------------------------------------------


def test_list_walks_all_pages(server, folder):
    ids = [f"node-{number:05}" for number in range(3210)]
    for cid in ids:
        server.add(cid)
    result = ctl("list", folder=folder)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["CID", *ids]
    assert len(server.asked) == 4
    result = ctl("list", "--json", folder=folder)
    assert [json.loads(line) for line in result.out.splitlines()] == [
        server.clients[cid] for cid in ids]


def test_list_filters(fleet, folder):
    def listed(*args):
        return [line.split()[0] for line in ctl("list", *args, folder=folder).out.splitlines()[1:]]

    assert listed("--disconnected") == ["nas"]
    assert listed("web-1?", "--connected") == ["web-10", "web-11", "web-12"]
    assert "disconnected" in ctl("list", "nas", folder=folder).out


@pytest.mark.parametrize("args, words", [
    (["list", "zzz*"], "no client matches 'zzz*'"),
    (["list", "web-*", "--disconnected"], "no client that is disconnected matches 'web-*'"),
    (["list", "web-111"], "nearest: web-11"),
    (["list", "zzz*", "--json"], "no client matches 'zzz*'"),
])
def test_list_of_nobody_is_3(fleet, folder, args, words):
    result = ctl(*args, folder=folder)
    assert result.code == 3 and result.out == "" and words in result.err


def test_list_of_an_empty_registry_is_3(server, folder):
    assert ctl("list", folder=folder) == (3, "", "cliserctl: there is no client\n")


def test_list_without_a_terminal_cuts_nothing(server, folder):
    server.add("x" * 64, cip="2001:db8:1234:5678:9abc:def0:1234:5678")
    out = ctl("list", folder=folder).out
    assert "x" * 64 in out and "2001:db8:1234:5678:9abc:def0:1234:5678" in out
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize("columns", [20, 40, 80, 132])
def test_list_fits_the_terminal(fleet, folder, columns):
    fleet.add("rack-7-" + "y" * 50 + "-000017", cip="2001:db8:1234:5678:9abc:def0:1234:5678")
    code, screen, _ = on_terminal("list", folder=folder, columns=columns)
    lines = screen.splitlines()
    assert code == 0 and len(lines) == 16
    assert max(map(len, lines)) <= columns
    long = next(line for line in lines if line.startswith("rack-7-"))
    assert "…" in long
    if columns >= 80:
        assert "REASON" in lines[0] and "0017 " in long
    # What is short stays whole.
    assert any(f"{line} ".startswith("web-12 ") for line in lines)


def test_list_later_pages_have_room_on_a_terminal(server, folder):
    for number in range(1000):
        server.add(f"a{number:03}")
    server.add("b" * 20)
    code, screen, _ = on_terminal("list", folder=folder, columns=132)
    assert code == 0 and "b" * 20 in screen


def test_list_memory_stays_flat(server, folder):
    """Pages are forgotten as they are printed."""
    for number in range(40000):
        server.add(f"client-with-a-longish-name-{number:06}")

    def peak(*args):
        done = subprocess.Popen([str(CTL), "list", *args], cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(done.pid, 0)
        assert status == 0
        return usage.ru_maxrss

    if not sanitized_ctl():
        assert peak() < peak("*-00000*") + 2048


def sanitized_ctl():
    return b"__asan_init" in CTL.read_bytes()


# --- colours, broken outputs --------------------------------------------------------------------


def test_colours_on_a_terminal_only_and_no_color_is_heeded(fleet, folder):
    assert "\033[" in on_terminal("list", folder=folder)[2]
    assert "\033[" not in on_terminal("list", folder=folder, env={"NO_COLOR": "1"})[2]
    assert "\033[" not in on_terminal("list", folder=folder, env={"TERM": "dumb"})[2]


@pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["status"], ["--help"]])
def test_full_disk_is_1_and_said(fleet, folder, args):
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(CTL), *args], cwd=folder, stdout=full, stderr=subprocess.PIPE,
                              text=True, timeout=limit(10))
    assert done.returncode == 1
    assert done.stderr == "cliserctl: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("count", [5, 3000])
def test_reader_that_goes_away_is_1_and_quiet(server, folder, count):
    for number in range(count):
        server.add(f"node-{number:05}")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([str(CTL), "list"], cwd=folder, stdout=write_end,
                          stderr=subprocess.PIPE, text=True, timeout=limit(10))
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")
    # It did not go on asking.
    assert len(server.asked) == 1


def test_control_bytes_of_a_server_do_not_reach_the_terminal(server, folder):
    server.add("web-1", reason="\033[2J", node="\033]0;x\007", connected=False)
    server.answers["POST", "/v1/clients/web-1/ping"] = (409, {"error": "no\033[2J\nno"})
    assert "?[2J" in ctl("list", folder=folder).out
    assert "?[2J" in ctl("show", "web-1", folder=folder).out
    assert ctl("ping", "web-1", folder=folder).err == "cliserctl: no?[2J?no\n"


# --- errors -------------------------------------------------------------------------------------


def test_no_server(folder):
    result = ctl("status", folder=folder)
    assert result == (1, "", "cliserctl: no cliserd at cliser.sock: is it running? --socket names "
                             "another control socket\n")


def test_socket_may_be_named_by_the_environment(fleet, folder):
    (folder / "else").mkdir()
    result = ctl("ping", "web-1", folder=folder / "else",
                 env={"CLISER_SOCKET": str(folder / "cliser.sock")})
    assert result.code == 0 and result.out.startswith("web-1: ")
    result = ctl("ping", "web-1", folder=folder, env={"CLISER_SOCKET": "/" + 200 * "x"})
    assert result.code == 2 and "CLISER_SOCKET: a path of 1 to 107 bytes" in result.err
    # An option counts more than the environment.
    result = ctl("ping", "web-1", "-s", folder / "cliser.sock", folder="/",
                 env={"CLISER_SOCKET": "/nowhere"})
    assert result.code == 0


def test_socket_left_behind(folder):
    socket.socket(socket.AF_UNIX).bind(str(folder / "cliser.sock"))
    result = ctl("status", folder=folder)
    assert result.code == 1 and "was left behind" in result.err


def test_socket_that_is_a_file(folder):
    (folder / "x").write_text("")
    result = ctl("status", "-s", "x", folder=folder)
    assert result.code == 1 and "x is no socket" in result.err


@needs_root
def test_socket_without_permission(server, folder):
    os.chmod(folder / "cliser.sock", 0o660)
    result = ctl("status", folder=folder, user=65534, group=65534, extra_groups=[])
    assert result.code == 1
    assert "you may not open cliser.sock (mode 0660): be in the group root" in result.err
    os.chmod(folder, 0o700)
    result = ctl("status", "-s", folder / "cliser.sock", folder="/", user=65534, group=65534,
                 extra_groups=[])
    assert result.code == 1 and "may not enter the folder" in result.err


def test_nearest_ids(fleet, folder):
    for cid, near in (("web-21", "web-1"), ("wbe-3", "web-3"), ("bd-1", "db-1"), ("naz", "nas")):
        result = ctl("show", cid, folder=folder)
        assert result.code == 3 and result.out == ""
        assert re.fullmatch(rf"cliserctl: no client {cid}; nearest: .*\b{near}\b.*\n", result.err)
    result = ctl("ping", "something-else", folder=folder)
    assert result == (3, "", "cliserctl: no client something-else; 'list' shows all there are\n")


def test_nearest_ids_cost_a_few_pages_at_most(server, folder):
    for number in range(20000):
        server.add(f"node-{number:05}")
    assert ctl("show", "something", folder=folder).code == 3
    assert len(server.asked) <= 6


@pytest.mark.parametrize("args, words", [
    ([], "a command is missing"),
    (["lst"], "no command 'lst'; did you mean list?"),
    (["frobnicate"], "no command 'frobnicate'"),
    (["show"], "show needs an ID"),
    (["show", "web-*"], "'list' takes patterns"),
    (["list", "a", "b"], "'b' is one argument too many"),
    (["list", "--yes"], "--yes is not for list"),
    (["list", "--nope"], "--nope is no option"),
    (["shutdown"], "shutdown whom?"),
    (["shutdown", "a", "--grace", "soon"], "--grace: 'soon' should be a duration"),
    (["shutdown", "a", "--all"], "--all takes no patterns beside it"),
    (["status", "--url", "http://127.0.0.1:1"], "--url needs --token-file"),
    (["status", "--url", "http://x", "--token-file", "/nowhere"], "--token-file: "),
])
def test_wrong_usage_is_2(folder, args, words):
    result = ctl(*args, folder=folder)
    assert result.code == 2 and result.out == "" and words in result.err


@pytest.mark.parametrize("answer, words", [
    ((200, b"<html>"), "is no cliserd"),
    ((200, b"[1]"), "is no cliserd"),
    ((502, b"<html>"), "HTTP status 502"),
    ((403, {"error": "the Host header names somebody else"}), "names somebody else"),
    ((500, {"error": 5}), "HTTP status 500"),
])
def test_strange_answers_are_1(server, folder, answer, words):
    server.answers["GET", "/v1/status"] = answer
    result = ctl("status", folder=folder)
    assert result.code == 1 and result.out == "" and words in result.err


def test_answers_with_fields_missing_are_no_crash(fleet, folder):
    for path in ("/v1/status", "/v1/clients", "/v1/clients/web-1", "/v1/shutdown"):
        for value in ({}, {"clients": 5, "waves": "x", "store": []}, {"clients": [None, 5, {}]},
                      {"state": "done", "waves": [None, {}], "totals": 3}):
            fleet.answers["GET", path] = (200, value)
            for args in (["status"], ["list"], ["show", "web-1"], ["shutdown-status"]):
                assert ctl(*args, folder=folder).code in (0, 3)


def test_server_that_speaks_no_http(folder):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "cliser.sock"))
        listening.listen(5)

        def serve():
            with contextlib.suppress(OSError):
                for answer in (b"110: qual a senha\r\n", b""):
                    connection, _ = listening.accept()
                    connection.sendall(answer)
                    connection.recv(1000)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        result = ctl("status", folder=folder)
        assert result.code == 1 and "is no cliserd" in result.err
        result = ctl("status", folder=folder)
        assert result.code == 1 and "closed the connection" in result.err


def test_help_fits_80_columns(folder):
    shown = ctl("--help", folder=folder)
    assert shown.code == 0 and shown.err == ""
    commands = ("status", "list", "show", "watch", "ping", "shutdown", "shutdown-status",
                "shutdown-cancel", "disconnect", "forget", "reload")
    for command in commands:
        assert re.search(rf"^  {command}\b", shown.out, re.M)
        own = ctl(command, "--help", folder=folder)
        assert own.code == 0 and own.out.startswith(f"Usage: cliserctl {command}")
        assert max(map(len, own.out.splitlines())) <= 80
        assert ("--wave" in own.out) == (command == "shutdown")
        assert "Without --socket it is" in own.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert re.fullmatch(r"cliserctl \d+\.\d+\.\d+\n", ctl("-V", folder=folder).out)


# --- over TCP -----------------------------------------------------------------------------------


@pytest.fixture
def tcp(folder):
    write_secret(folder / "token", fake_control.TOKEN + "\n")
    with FakeControl(("127.0.0.1", 0)) as server:
        server.add("web-1")
        yield server


def test_url_with_token(tcp, folder):
    args = ["--url", tcp.url + "/", "--token-file", "token"]
    assert ctl("status", *args, folder=folder).code == 0
    assert ctl(*args, "disconnect", "web-1", folder=folder).code == 0
    # Neither a proxy of the environment nor its settings have a part in it.
    assert ctl("status", *args, folder=folder, env={"http_proxy": "http://127.0.0.1:1"}).code == 0


def test_wrong_token_is_1_and_never_shown(tcp, folder):
    write_secret(folder / "token", "another-secret\n")
    result = ctl("status", "-u", tcp.url, "-t", "token", folder=folder)
    assert result.code == 1 and "the token in token is not the server's" in result.err
    assert "another-secret" not in result.err + result.out


def test_url_without_server(folder):
    write_secret(folder / "token", "x\n")
    url = f"http://127.0.0.1:{harness.free_port()}"
    result = ctl("status", "-u", url, "-t", "token", folder=folder)
    assert result == (1, "", f"cliserctl: no cliserd at {url}: Connection refused\n")


# --- shutdown -----------------------------------------------------------------------------------


def all_go(server, still_up=0):
    """The order ends by itself: one wave after the other, a few looks apart."""
    def end_of(number):
        def step():
            if number <= len(server.order["waves"]):
                server.wave_ends(number, still_up)
        return step

    server.script = [None, end_of(1), None, end_of(2), None, end_of(3)]


def orders(server):
    return [body for method, path, body in server.asked
            if (method, path) == ("POST", "/v1/shutdown") and not body.get("dry_run")]


def test_shutdown_without_a_terminal_wants_yes(fleet, folder):
    result = ctl("shutdown", "web-*", folder=folder)
    assert result.code == 2 and "--yes" in result.err
    assert fleet.asked == []


def test_shutdown_dry_run(fleet, folder):
    result = ctl("shutdown", "web-1*", "--wave", "db-*,nas", "--dry-run", folder=folder)
    assert result.code == 0
    assert result.out.splitlines() == [
        "wave 1, web-1*: 4 clients", "  web-1", "  web-10", "  web-11", "  web-12",
        "wave 2, db-*, nas: 1 client", "  db-1",
        "5 clients would be told to shut down; nothing was ordered"]
    assert "nobody who is connected matches 'nas'" in result.err
    result = ctl("shutdown", "--all", "-n", "-j", folder=folder)
    assert json.loads(result.out)["count"] == 13
    assert orders(fleet) == []


def test_shutdown_order_as_given(fleet, folder):
    all_go(fleet)
    result = ctl("shutdown", "web-1", "--wave", "db-*,nas", "web-2", "--wave", "web-*", "--all",
                 "--yes", folder=folder)
    assert result.code == 2  # --all with patterns beside it
    result = ctl("shutdown", "web-1", "--wave", "db-*,nas", "web-2", "--wave", "web-*", "--yes",
                 "--grace", "90s", "--hold", "0s", folder=folder)
    assert result.code == 0
    assert orders(fleet) == [{"waves": [["web-1", "web-2"], ["db-*", "nas"], ["web-*"]],
                              "grace": "90s", "hold": "0s"}]
    fleet.order = {"state": "none"}
    all_go(fleet)
    assert ctl("shutdown", "-w", "db-*", "--all", "-y", folder=folder).code == 0
    assert orders(fleet)[1] == {"waves": [["db-*"], ["*"]], "hold": "15m"}


def test_shutdown_takes_commas_between_ids_everywhere(fleet, folder):
    all_go(fleet)
    assert ctl("shutdown", "web-1,web-2", "nas", "-y", folder=folder).code == 0
    assert orders(fleet) == [{"waves": [["web-1", "web-2", "nas"]]}]
    for slip in ("web-1,", ",web-1", "web-1,,nas", "web-1, nas"):
        result = ctl("shutdown", slip, "-y", folder=folder)
        assert result.code == 2 and f"'{slip}' should be IDs or patterns" in result.err
    assert len(orders(fleet)) == 1


def test_shutdown_tells_each_change_of_a_wave_once(fleet, folder):
    all_go(fleet)
    result = ctl("shutdown", "web-*", "-w", "db-*", "-y", folder=folder)
    assert result.code == 0 and result.err == ""
    lines = result.out.splitlines()
    assert [line for line in lines if line.startswith("wave ")] == [
        "wave 1 (web-*) running: 14 match, 2 not connected",
        "wave 1 (web-*) done: 12 told, 12 gone, 0 still up",
        "wave 2 (db-*) running: 3 match, 2 not connected",
        "wave 2 (db-*) done: 1 told, 1 gone, 0 still up"]
    assert any(line.startswith("order 3: done after ") for line in lines)
    assert "still up:" not in result.out


def test_shutdown_with_some_still_up_is_4(fleet, folder):
    all_go(fleet, still_up=1)
    fleet.targets = [{"cid": f"web-{number}", "wave": 1, "state": "still_up" if number < 5 else
                      "gone"} for number in range(1, 13)]
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result.code == 4
    assert result.out.endswith("\nstill up:\n  web-1\n  web-2\n  web-3\n  web-4\n")
    result = ctl("shutdown-status", folder=folder)
    assert result.code == 4 and result.out.endswith("  web-4\n")
    result = ctl("shutdown-status", "--json", folder=folder)
    assert result.code == 4 and json.loads(result.out) == fleet.order


def test_shutdown_json_ends_with_one_object(fleet, folder):
    all_go(fleet, still_up=1)
    fleet.targets = [{"cid": f"a{number:04}", "wave": 1, "state": "still_up"}
                     for number in range(2500)]
    result = ctl("shutdown", "web-*", "-y", "--json", folder=folder)
    assert result.code == 4 and result.err == "" and result.out.count("\n") == 1
    order = json.loads(result.out)
    assert order.pop("still_up_clients") == [f"a{number:04}" for number in range(2500)]
    assert order == fleet.order


def test_shutdown_of_nobody_is_3(fleet, folder):
    result = ctl("shutdown", "nas", "-y", folder=folder)
    assert result == (3, "", "cliserctl: no client that matches is connected\n")
    assert ctl("shutdown", "nas", "-y", "--hold", "0s", folder=folder).code == 3
    assert orders(fleet) == []
    # Who asks for a hold waits for some to come.
    all_go(fleet)
    result = ctl("shutdown", "nas", "-y", "--hold", "10m", folder=folder)
    assert result.code == 0 and "who comes within 10m will be told" in result.err
    assert orders(fleet) == [{"waves": [["nas"]], "hold": "10m"}]
    assert "holds until" in result.out


def test_shutdown_all_says_how_long_it_holds(fleet, folder):
    all_go(fleet)
    result = ctl("shutdown", "--all", "-y", folder=folder)
    assert result.code == 0
    assert re.search(r"holds until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", result.out)
    assert "shutdown-cancel" in result.out


def test_shutdown_beside_another_order_is_1(fleet, folder):
    fleet.order = {"state": "running"}
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result == (1, "", "cliserctl: order 2 is running; cancel it first\n")


def test_shutdown_with_a_pattern_the_server_refuses_is_2(fleet, folder):
    fleet.answers["POST", "/v1/shutdown"] = (400, {"error": "'[' is no pattern"})
    assert ctl("shutdown", "[", "-y", folder=folder) == (2, "", "cliserctl: '[' is no pattern\n")


def test_shutdown_that_is_not_durable_warns(fleet, folder):
    fleet.durable = False
    all_go(fleet)
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result.code == 0 and "warning: the order is not in the server's database" in result.err


@pytest.mark.parametrize("state, words", [("cancelled", "the order was cancelled"),
                                          ("expired", "has expired")])
def test_shutdown_that_others_end_is_1(fleet, folder, state, words):
    fleet.script = [None, lambda: fleet.order.update(state=state)]
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result.code == 1 and words in result.err
    assert "order 3: " + state in result.out


@pytest.mark.parametrize("order, words", [
    ({"state": "none"}, "it was forgotten"),
    ({"id": 4, "state": "running", "waves": []}, "another one has been given"),
])
def test_shutdown_whose_order_is_gone_is_1(fleet, folder, order, words):
    fleet.script = [None, lambda: setattr(fleet, "order", order)]
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result.code == 1 and words in result.err


def test_shutdown_goes_on_over_a_restart(fleet, folder):
    process = subprocess.Popen([str(CTL), "shutdown", "web-*", "-y"], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL)
    wait_until(lambda: fleet.paths("GET").count("/v1/shutdown") >= 2)
    fleet.stop()
    time.sleep(1.5)
    fleet.script = [lambda: fleet.wave_ends(1)]
    fleet.start()
    out, err = process.communicate(timeout=limit(20))
    assert process.returncode == 0
    assert err.count("survives a restart") == 1 and err.count("is back") == 1
    assert err.count("\n") == 3
    assert "order 3: done" in out
    assert len(orders(fleet)) == 1


def test_shutdown_order_that_may_have_been_given_is_said(fleet, folder):
    """The server dies between taking the order and answering: nobody may give it twice."""
    def die(self, _, __, body):
        if body.get("dry_run"):
            return self.answer(200, self.control.plan(body))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    handler = fleet._server.RequestHandlerClass
    handler.post_shutdown = die
    result = ctl("shutdown", "web-*", "-y", folder=folder)
    assert result.code == 1 and "may have been given all the same" in result.err
    assert len(orders(fleet)) == 1


# On a terminal.


def test_shutdown_asks_for_the_count(fleet, folder):
    all_go(fleet)
    code, screen, _ = on_terminal("shutdown", "web-*", "-w", "db-*", folder=folder,
                                  typed=[("type 13 to shut 13 clients down: ", "13\n")])
    assert code == 0 and len(orders(fleet)) == 1
    assert "wave 1, web-*: 12 clients: web-1, web-10, " in screen
    assert "wave 2, db-*: 1 client: db-1\n" in screen


@pytest.mark.parametrize("typed", ["12\n", "y\n", "yes\n", "\n", "1 3\n", "13 clients\n", "\x04",
                                   "013\n"])
def test_shutdown_with_another_answer_orders_nothing(fleet, folder, typed):
    code, screen, _ = on_terminal("shutdown", "web-*", "-w", "db-*", folder=folder,
                                  typed=[("clients down: ", typed)])
    assert code == 1 and "cliserctl: nothing was ordered" in screen
    assert orders(fleet) == []


def test_shutdown_ctrl_c_at_the_question_orders_nothing(fleet, folder):
    code, _, _ = on_terminal("shutdown", "--all", folder=folder,
                             typed=[("clients down: ", "\x03")])
    assert code == -signal.SIGINT and orders(fleet) == []


def test_shutdown_all_on_a_terminal_says_that_late_comers_are_told(fleet, folder):
    code, screen, _ = on_terminal("shutdown", "--all", folder=folder,
                                  typed=[("clients down: ", "no\n")])
    assert code == 1 and "Who connects within 15m and matches is told as well." in screen


@pytest.mark.parametrize("columns", [80, 132])
def test_shutdown_progress_is_redrawn_in_place(fleet, folder, columns):
    fleet.targets = [{"cid": "db-1", "wave": 2, "state": "still_up"}]
    with Terminal("shutdown", "web-*", "-w", "db-*", "-y", folder=folder, columns=columns) as seen:
        seen.wait_for(r"running for \d+s, wave 1 of 2")
        seen.wait_for(r"0 of 13 gone, 12 told and still up")
        fleet.wave_ends(1)
        seen.wait_for(r"wave 2 of 2\n\[#{22}\.\.\] 12 of 13 gone, 1 told and still up")
        seen.settle()
        # However often it was drawn, it is there once.
        for words in ("WAVE ", "running for", r" web-\* ", r" db-\* ", " all "):
            assert len(re.findall(words, seen.screen())) == 1
        fleet.wave_ends(2, still_up=1)
        assert seen.end() == 4
        screen = seen.screen()
    assert "running for" not in screen and "#" not in screen
    assert screen.count("WAVE ") == 1 and "order 3: done after" in screen
    assert screen.endswith("still up:\n  db-1\n")


def test_shutdown_progress_on_a_dumb_terminal_is_lines(fleet, folder):
    all_go(fleet)
    code, screen, text = on_terminal("shutdown", "web-*", "-y", folder=folder, env={"TERM": "dumb"})
    assert code == 0 and "\033" not in text
    assert "wave 1 (web-*) done: 12 told, 12 gone, 0 still up\n" in screen


def test_shutdown_progress_with_more_waves_than_rows(fleet, folder):
    for number in range(40):
        fleet.add(f"n{number:02}")
    waves = [word for number in range(40) for word in ("-w", f"n{number:02}")]
    with Terminal("shutdown", *waves, "-y", folder=folder, rows=12) as seen:
        seen.wait_for("wave 1 of 40, shown are 1 to 7")
        for number in range(1, 31):
            fleet.wave_ends(number)
        seen.wait_for("wave 31 of 40, shown are 28 to 34")
        seen.settle()
        block = seen.screen().splitlines()
        assert len(block) < 12
        assert re.search(r"^ +31 +n30 +running", seen.screen(), re.M)
        for number in range(31, 41):
            fleet.wave_ends(number)
        assert seen.end() == 0
        # The summary has them all.
        assert len(re.findall(r"^ +\d+ +n\d\d +done", seen.screen(), re.M)) == 40


def test_shutdown_long_list_of_those_still_up_is_cut_on_a_terminal_only(fleet, folder):
    all_go(fleet, still_up=1)
    fleet.targets = [{"cid": f"a{number:04}", "wave": 1, "state": "still_up"}
                     for number in range(1200)]
    code, screen, _ = on_terminal("shutdown", "web-*", "-y", folder=folder)
    assert code == 4 and screen.endswith("  a0049\n  and 1,150 more\n")
    result = ctl("shutdown-status", folder=folder)
    assert result.out.endswith("  a1199\n")


def test_shutdown_ctrl_c_leaves_the_order(fleet, folder):
    with Terminal("shutdown", "web-*", "-y", folder=folder) as seen:
        seen.wait_for("wave 1 of 1")
        seen.type("\x03")
        assert seen.end() == 1
        assert "the order goes on" in seen.screen() and "shutdown-cancel" in seen.screen()
        assert "running for" not in seen.screen()
    assert fleet.order["state"] == "running"
    assert "DELETE" not in [method for method, _, _ in fleet.asked]


def test_shutdown_json_beside_a_terminal(fleet, folder):
    """The question and the progress go to the terminal, the result to the file."""
    all_go(fleet)
    with open(folder / "out", "w") as out:
        code, screen, _ = on_terminal("shutdown", "web-*", "--json", folder=folder, stdout=out,
                                      typed=[("12 clients down: ", "12\n")])
    assert code == 0 and "order 3:" not in screen
    assert json.loads((folder / "out").read_text())["still_up_clients"] == []


# shutdown-status and shutdown-cancel.


def test_shutdown_status(fleet, folder):
    result = ctl("shutdown-status", folder=folder)
    assert result == (0, "there never was a shutdown order\n", "")
    fleet.give({"waves": [["web-*"], ["db-*"]]})
    result = ctl("shutdown-status", folder=folder)
    assert result.code == 0 and re.search(r"^ +1 +web-\* +running +12 ", result.out, re.M)


def test_shutdown_cancel(fleet, folder):
    result = ctl("shutdown-cancel", folder=folder)
    assert result == (1, "", "cliserctl: no order is running or holding\n")
    fleet.give({"waves": [["web-*"], ["db-*"]]})
    result = ctl("shutdown-cancel", folder=folder)
    assert result == (0, "order 3 is cancelled: 12 were told, 1 were not\n", "")
    fleet.give({"waves": [["web-*"]]})
    assert json.loads(ctl("shutdown-cancel", "-j", folder=folder).out)["state"] == "cancelled"


def test_shutdown_cancel_that_is_not_durable_is_no_success(fleet, folder):
    fleet.durable = False
    for more in ([], ["--json"]):
        fleet.give({"waves": [["web-*"]]})
        result = ctl("shutdown-cancel", *more, folder=folder)
        assert result.code == 1 and "goes on with the order" in result.err
        assert "cancelled" in result.out


def test_shutdown_of_all_with_nobody_there_holds_for_those_that_are_known(fleet, folder):
    for record in fleet.clients.values():
        record["cstatus"] = False
    result = ctl("shutdown", "--all", "-n", folder=folder)
    assert "who comes within 15m would be told" in result.err and orders(fleet) == []
    all_go(fleet)
    result = ctl("shutdown", "--all", "-y", folder=folder)
    assert result.code == 0 and "who comes within 15m will be told" in result.err
    assert orders(fleet) == [{"waves": [["*"]], "hold": "15m"}]


def test_shutdown_of_all_of_nobody_is_3(server, folder):
    result = ctl("shutdown", "--all", "-y", folder=folder)
    assert result == (3, "", "cliserctl: no client that matches is connected\n")
    assert orders(server) == []


# --- watch --------------------------------------------------------------------------------------


class Watch:
    """A cliserctl watch without a terminal, line by line."""

    def __init__(self, *args, folder):
        self.process = subprocess.Popen([str(CTL), "watch", *args], cwd=folder,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def line(self):
        out = self.process.stdout.fileno()
        while b"\n" not in self.lines:
            assert select.select([out], [], [], limit(10))[0], "no line came"
            self.lines += os.read(out, 65536)
        line, self.lines = self.lines.split(b"\n", 1)
        return line.decode() + "\n"

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=limit(10))
        return Result(self.process.returncode, out.decode(), err.decode())


EVENTS = [
    ("connected", {"cid": "web-1", "sid": 1, "cip": "127.0.0.1", "cport": 1234},
     "web-1  from 127.0.0.1 port 1234"),
    ("disconnected", {"cid": "web-1", "sid": 1, "cip": "127.0.0.1", "cport": 1, "reason": "left"},
     "web-1  left"),
    ("refused", {"cid": None, "cip": "::1", "cport": 7, "reason": "password", "code": 410},
     "no ID  password (410), from ::1 port 7"),
    ("refused", {"cid": "nas", "cip": "::1", "cport": 7, "reason": "left", "code": None},
     "nas  left, from ::1 port 7"),
    ("shutdown", {"order": 3, "what": "wave_started", "wave": 1}, "order 3, wave 1: wave started"),
    ("shutdown", {"order": 3, "what": "told", "wave": 1, "cid": "nas"},
     "nas  order 3, wave 1: told"),
    ("shutdown", {"order": 3, "what": "done"}, "order 3: done"),
]


def test_watch_prints_a_line_an_event(server, folder):
    with Watch(folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        for event, data, words in EVENTS:
            server.emit(event, time=time.time(), **data)
            line = watch.line()
            assert re.match(rf"\d\d:\d\d:\d\d  {event} ", line) and line.endswith(f"  {words}\n")
        server.emit("missed", missed=1234)
        assert "1,234 events were lost" in watch.line()
        server.emit("of_the_future", a=1)
        assert watch.line().endswith('of_the_future  {"a":1}\n')
        assert watch.stop() == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_json_is_one_object_a_line(server, folder, number):
    with Watch("--json", folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        for event, data, _ in EVENTS:
            server.emit(event, time=1795431702.125, **data)
            assert json.loads(watch.line()) == {"event": event, "time": 1795431702.125, **data}
        assert watch.stop(number) == (0, "", "")


def test_watch_goes_on_behind_the_last_event(server, folder):
    with Watch("--json", folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        server.emit("connected", cid="a")
        assert json.loads(watch.line())["cid"] == "a"
        server.stop()
        server.events.append((2, "connected", {"cid": "b"}))
        time.sleep(1)
        server.start()
        assert json.loads(watch.line())["cid"] == "b"
        result = watch.stop()
    assert result.code == 0
    assert server.last_event_ids == [None, "1"]
    assert result.err.count("trying again") == 1 and result.err.count("is back") == 1


def test_watch_that_never_began_is_1(server, folder):
    server.answers["GET", "/v1/events"] = (503, {"error": "32 streams are open already"})
    assert ctl("watch", folder=folder) == (1, "", "cliserctl: 32 streams are open already\n")
    server.stop()
    assert ctl("watch", folder=folder).code == 1


def test_watch_events_that_are_no_json_are_said(server, folder):
    with Watch(folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        server.emit("connected", cid="a")
        watch.line()
        server.events.append((2, "odd", "no json"))
        server.emit("connected", cid="b")
        assert "b" in watch.line()
        result = watch.stop()
    assert result.code == 0 and "no JSON object" in result.err


def test_watch_many_events_none_lost(server, folder):
    with Watch("--json", folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        for number in range(20000):
            server.events.append((number + 1, "connected", {"cid": f"n{number}"}))
        for number in range(20000):
            assert json.loads(watch.line())["cid"] == f"n{number}"
        assert watch.stop().code == 0


def test_watch_reader_that_goes_away_ends_it(server, folder):
    with Watch(folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        watch.process.stdout.close()
        server.emit("connected", cid="a")
        assert watch.process.wait(limit(10)) == 1


def test_watch_on_a_terminal_has_a_last_line_with_the_status(server, folder):
    last = r"(^|\n)15,000 connected, 15,210 registered, 3 pending, shutdown: none$"
    with Terminal("watch", folder=folder) as seen:
        seen.wait_for(last)
        server.emit("connected", time=time.time(), cid="web-1", cip="127.0.0.1", cport=1)
        seen.wait_for(r"connected     web-1  from 127\.0\.0\.1 port 1\n" + last[6:])
        server.status.update(connected=7, shutdown="running")
        seen.wait_for(r"\n7 connected, 15,210 registered, 3 pending, shutdown: running$")
        server.stop()
        seen.wait_for("the server does not answer$")
        server.start()
        seen.wait_for("the server is back\n")
        seen.wait_for(r"\n7 connected, .*$")
        seen.type("\x03")
        assert seen.end() == 0
        # The last line went away, and the event was printed once.
        assert "registered" not in seen.screen() and seen.screen().count("web-1") == 1
        assert "\033[32m" in seen.text()


def test_watch_status_is_cut_to_a_narrow_terminal(server, folder):
    with Terminal("watch", folder=folder, columns=30) as seen:
        seen.wait_for("15,000 connected, 15,210 regi")
        seen.type("\x03")
        assert seen.end() == 0


def test_watch_waits_without_turning(server, folder):
    """An idle watch is cheap, with a stream and without."""
    with Watch(folder=folder) as watch:
        wait_until(lambda: server.streams == 1)
        server.stop()
        time.sleep(1.5)
        fields = open(f"/proc/{watch.process.pid}/stat").read().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        assert ticks / os.sysconf("SC_CLK_TCK") < limit(0.3)
        server.start()
        assert watch.stop().code == 0
