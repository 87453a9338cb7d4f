"""
What the black-box tests share: real servers, and clients that speak the wire protocol byte by byte.

Nothing here knows how cliserd works inside; everything comes from docs/protocol.md and
docs/configuration.md. The pieces:

  Server   one running cliserd with its own folder, ini file, port and database. Tests get it from
           the fixture start_server (conftest.py), which also ends it: the exit code has to be 0 and
           the log free of sanitizer reports, whatever else the test was about.
  run      a cliserd that is expected to end by itself: -t, --help, broken configurations.
  Client   one connection in the foreground, for tests that look at each line.
  Swarm    many connections driven by one selector, which shake hands and answer by themselves and
           write down every line with the time it came. Witness is a swarm in a thread of its own:
           innocent clients that must stay connected whatever is done to the server meanwhile.
  rows     the table `clients`, read the way an operator would: read-only, beside the server.

Every line from a server is compared with the full list of lines that docs/protocol.md allows, so a
wrong byte anywhere fails the test that happens to see it. So does a 130: only a client whose test
has set may_be_told may hear one, once in a session and never before its 140.

Waiting is polling with a deadline. CLISER_TIME_SCALE stretches deadlines (a sanitizer build wants 3
or so) and nothing else: intervals that the server is configured with stay as they are.

  CLISER_BIN          folder with the programs; default build/release/bin
  CLISER_TIME_SCALE   default 1
  CLISER_KILL_ROUNDS  rounds of kill -9, default 200
"""

import collections
import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import queue
import re
import resource
import select
import selectors
import signal as signals
import socket
import sqlite3
import struct
import subprocess
import threading
import time
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CLISER_BIN", ROOT / "build" / "release" / "bin")).resolve()
SCALE = float(os.environ.get("CLISER_TIME_SCALE", "1"))

ASK_PASSWORD = b"110: qual a senha\r\n"
ASK_ID = b"120: qual o ID\r\n"
CONNECTED = b"140: Connected\r\n"
KEEP_ALIVE = b"100: keep alive\r\n"
SHUTDOWN = b"130: shutdown sys\r\n"
REFUSALS = {
    400: b"400: protocol error\r\n",
    408: b"408: timed out\r\n",
    410: b"410: wrong password\r\n",
    420: b"420: invalid ID\r\n",
    421: b"421: ID already connected\r\n",
    422: b"422: ID not allowed\r\n",
    429: b"429: too many from this address\r\n",
    430: b"430: disconnected by operator\r\n",
    431: b"431: replaced\r\n",
    450: b"450: server full\r\n",
    451: b"451: registry unavailable\r\n",
    460: b"460: server restarting\r\n",
}
KNOWN_LINES = {ASK_PASSWORD, ASK_ID, CONNECTED, KEEP_ALIVE, *REFUSALS.values()}

PASSWORD = "secret"
SANITIZER_REPORTS = ("ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer")

# Keep-alives come at a random moment: a test that does not want them must not get one by chance.
# Nor must one that gives wrong passwords be shut out for them: all come from one address.
DEFAULTS = {
    "server": {"listen": "127.0.0.1:0"},
    "auth": {"password": PASSWORD},
    "keepalive": {"interval": "10h"},
    "limits": {"auth_failures": "0"},
    "registry": {"store": "sqlite", "path": "cliser.db"},
}


def limit(seconds):
    """A deadline that long, stretched for slow builds."""
    return seconds * SCALE


def wait_until(question, seconds=5.0, what="the condition"):
    """Polls until the question has a true answer, and returns it; fails at the deadline."""
    end = time.monotonic() + limit(seconds)
    pause = 0.001
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true within {limit(seconds):.1f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def holds_for(question, seconds, what="the condition"):
    """The opposite of wait_until: the answer has to stay true for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert question(), f"{what} did not stay true for {seconds:.1f} s"
        time.sleep(0.02)


def sanitized():
    """Is the server a sanitizer build? Its memory says little then."""
    return b"__asan_init" in (BIN / "cliserd").read_bytes()


# --- configuration ------------------------------------------------------------------------------


def merged(overrides):
    """The test defaults with some keys replaced; None takes out a key, or a section."""
    sections = {name: dict(keys) for name, keys in DEFAULTS.items()}
    for name, keys in (overrides or {}).items():
        if keys is None:
            sections.pop(name, None)
            continue
        section = sections.setdefault(name, {})
        for key, value in keys.items():
            if value is None:
                section.pop(key, None)
            else:
                section[key] = value
    return sections


def ini_text(sections):
    """An ini file from {section: {key: value}}; a list becomes a repeated key."""
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        for key, value in keys.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            lines += [f"{key} = {item}" for item in values]
        lines.append("")
    return "\n".join(lines)


def write_secret(path, content, mode=0o640):
    """A file with a password or a token in it: others may not read those."""
    path = pathlib.Path(path)
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# --- the registry, from outside -----------------------------------------------------------------


@contextlib.contextmanager
def reading(db):
    """A read-only connection to the database, beside whoever writes it."""
    uri = "file:" + urllib.parse.quote(str(db)) + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=limit(5), isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    finally:
        connection.close()


def rows(db):
    """The table clients as {cid: row}; a row answers to row["sid"] and so on."""
    with reading(db) as connection:
        return {row["cid"]: row for row in connection.execute("SELECT * FROM clients")}


def connected_ids(db):
    """Who is connected according to the database."""
    with reading(db) as connection:
        return {cid for (cid,) in connection.execute("SELECT cid FROM clients WHERE cstatus = 1")}


# --- the server ---------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class Server:
    """One cliserd. Made by the fixture start_server; see there for the arguments."""

    def __init__(self, folder, ini, args=(), env=None, wrap=(), limits=None, user=None,
                 without_fds=(), wait=True, stderr_pipe_bytes=None):
        self.folder = pathlib.Path(folder)
        self.ini = self.folder / "cliser.ini"
        self.db = self.folder / "cliser.db"
        self.sections = None
        self.log = []
        self.raw_log = b""
        self.exit_codes = {0}
        self.killed = False
        self.ended = False
        self._news = threading.Condition()
        self._log_mode = "read"
        self._limits = limits or {}
        self._without_fds = without_fds

        self.ini.write_bytes(ini if isinstance(ini, bytes) else ini.encode())
        read_end, write_end = os.pipe()
        if stderr_pipe_bytes:
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, stderr_pipe_bytes)
        self.proc = subprocess.Popen(
            [*wrap, str(BIN / "cliserd"), str(self.ini), *args],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=write_end,
            env={**os.environ, **(env or {})}, preexec_fn=self._in_child,
            **({"user": user, "group": user, "extra_groups": []} if user is not None else {}))
        os.close(write_end)
        self._stderr = read_end
        self._wake_read, self._wake_write = os.pipe()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.address = None
        self.tls_address = None
        self.port = None
        self.addresses = []
        if wait:
            self.wait_ready()

    def _in_child(self):
        # A test run that is killed must not leave servers behind.
        _libc.prctl(_PR_SET_PDEATHSIG, signals.SIGKILL, 0, 0, 0)
        for which, value in self._limits.items():
            resource.setrlimit(which, value)
        for fd in self._without_fds:
            os.close(fd)

    @property
    def pid(self):
        return self.proc.pid

    # The log.

    def _read_log(self):
        partial = b""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        listening = False
        while self._log_mode != "close":
            if listening != (self._log_mode == "read"):
                listening = not listening
                if listening:
                    poll.register(self._stderr, select.POLLIN)
                else:
                    poll.unregister(self._stderr)
            ready = [fd for fd, _ in poll.poll()]
            if self._wake_read in ready:
                os.read(self._wake_read, 1)
                continue
            chunk = os.read(self._stderr, 65536)
            with self._news:
                self.raw_log += chunk
                *lines, partial = (partial + chunk).split(b"\n")
                if not chunk and partial:
                    lines = [partial]
                self.log += [line.decode("utf-8", "replace") for line in lines]
                self._news.notify_all()
            if not chunk:
                break
        for fd in (self._stderr, self._wake_read):
            os.close(fd)
        with self._news:
            self.ended = True
            self._news.notify_all()

    def _set_log_mode(self, mode):
        with self._news:
            if self.ended:
                return
        self._log_mode = mode
        with contextlib.suppress(BrokenPipeError):
            os.write(self._wake_write, b"x")

    def pause_log(self):
        """Stops reading the server's stderr."""
        self._set_log_mode("pause")

    def resume_log(self):
        self._set_log_mode("read")

    def close_log(self):
        """Nobody reads the server's stderr any more: its end of the pipe is broken from here on."""
        self._set_log_mode("close")
        self._reader.join(limit(5))

    def _end_log(self):
        """The process has ended: reads what is left."""
        self.resume_log()
        self._reader.join(limit(5))

    def find_log(self, pattern, start=0):
        """The first log line that the pattern (a regular expression) is found in, or None."""
        with self._news:
            for line in self.log[start:]:
                found = re.search(pattern, line)
                if found:
                    return found
        return None

    def wait_log(self, pattern, seconds=5.0, start=0):
        """Waits for such a log line and returns the match."""
        end = time.monotonic() + limit(seconds)
        with self._news:
            while True:
                for line in self.log[start:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                start = max(start, len(self.log))
                left = end - time.monotonic()
                if left <= 0 or self.ended:
                    state = "it ended" if self.ended else f"not within {limit(seconds):.1f} s"
                    raise AssertionError(f"no log line like {pattern!r}: {state}")
                self._news.wait(left)

    def mark_log(self):
        """Where the log stands now, for wait_log(start=...)."""
        with self._news:
            return len(self.log)

    def wait_ready(self):
        found = self.wait_log(r'\bready: ([^"]*)', seconds=15)
        self.addresses = [part.strip() for part in found.group(1).split(",")]
        for part in self.addresses:
            if part.startswith("unix:"):
                continue
            host, port = part.removeprefix("tls:").rsplit(":", 1)
            address = (host.strip("[]"), int(port))
            if part.startswith("tls:"):
                self.tls_address = self.tls_address or address
            elif not self.address:
                self.address, self.port = address, address[1]

    def take_log(self):
        """The lines so far, which are forgotten here: for servers that run for long."""
        with self._news:
            lines, self.log, self.raw_log = self.log, [], b""
        return lines

    def log_text(self):
        with self._news:
            return "\n".join(self.log)

    # The process.

    def signal(self, number):
        self.proc.send_signal(number)

    def wait_exit(self, seconds=10.0):
        """Waits for the process to end by itself and returns its exit code."""
        try:
            code = self.proc.wait(limit(seconds))
        except subprocess.TimeoutExpired:
            pytest.fail(f"cliserd did not end within {limit(seconds):.1f} s")
        self._end_log()
        return code

    def stop(self, number=signals.SIGTERM, seconds=10.0):
        """Sends the signal and returns the exit code."""
        self.signal(number)
        return self.wait_exit(seconds)

    def kill(self):
        """kill -9."""
        self.killed = True
        self.proc.kill()
        self.proc.wait()
        self._end_log()

    def rewrite_ini(self, overrides=None, ini=None):
        """Replaces the ini file; overrides are against what the server was started with."""
        if ini is None:
            sections = {name: dict(keys) for name, keys in self.sections.items()}
            for name, keys in (overrides or {}).items():
                if keys is None:
                    sections.pop(name, None)
                    continue
                for key, value in keys.items():
                    if value is None:
                        sections.setdefault(name, {}).pop(key, None)
                    else:
                        sections.setdefault(name, {})[key] = value
            ini = ini_text(sections)
        self.ini.write_bytes(ini if isinstance(ini, bytes) else ini.encode())

    def reload(self, overrides=None, ini=None, event="reloaded"):
        """Rewrites the ini file, sends SIGHUP, and waits for the event that answers it."""
        self.rewrite_ini(overrides, ini)
        mark = self.mark_log()
        self.signal(signals.SIGHUP)
        return self.wait_log(rf"\b{event}\b", start=mark)

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    def set_limit(self, which, soft):
        """Changes a soft limit of the running server; returns what it was. The hard one stays."""
        old, hard = resource.prlimit(self.pid, which)
        resource.prlimit(self.pid, which, (soft, hard))
        return old

    def leave_descriptors(self, spare):
        """Leaves the server that many descriptors. Returns the limit it had."""
        used = {int(fd) for fd in os.listdir(f"/proc/{self.pid}/fd")}
        number = free = 0
        while number in used or free < spare:
            free += number not in used
            number += 1
        # Descriptors above the limit stay open; what counts is which numbers are still to be had.
        return self.set_limit(resource.RLIMIT_NOFILE, number)

    def rows(self):
        return rows(self.db)

    def finish(self):
        """Ends the server if it still runs and says what was wrong with it, or returns None."""
        if self.proc.poll() is None and not self.killed:
            self.signal(signals.SIGTERM)
        complaint = None
        try:
            self.proc.wait(limit(15))
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            complaint = "cliserd did not stop on SIGTERM"
        self._end_log()
        os.close(self._wake_write)
        code = self.proc.returncode
        if complaint is None and not self.killed and code not in self.exit_codes:
            complaint = f"cliserd ended with {code}, not {sorted(self.exit_codes)}"
        text = self.log_text()
        for report in SANITIZER_REPORTS:
            if report in text:
                complaint = f"sanitizer: {report!r} is in the log"
        return complaint


def run(*args, folder, ini=None, name="test.ini", seconds=10.0, env=None, wrap=(), user=None):
    """
    Runs cliserd to its end. With ini, that text is written to a file called name first. Returns the
    CompletedProcess with text output.
    """
    folder = pathlib.Path(folder)
    if ini is not None:
        (folder / name).write_bytes(ini if isinstance(ini, bytes) else ini.encode())
    result = subprocess.run(
        [*wrap, str(BIN / "cliserd"), *map(str, args)], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=limit(seconds), env={**os.environ, **(env or {})},
        **({"user": user, "group": user, "extra_groups": []} if user is not None else {}))
    result.stdout = result.stdout.decode("utf-8", "replace")
    result.stderr = result.stderr.decode("utf-8", "replace")
    for report in SANITIZER_REPORTS:
        assert report not in result.stderr, result.stderr
    return result


# --- one client ---------------------------------------------------------------------------------


def address_of(target):
    """The socket family and address of a Server, (host, port) or unix path."""
    if isinstance(target, Server):
        target = target.address
    if isinstance(target, tuple):
        return (socket.AF_INET6 if ":" in target[0] else socket.AF_INET), target
    return socket.AF_UNIX, str(target)


class Listener:
    """What a client may hear. Every line of every test comes through here."""

    may_be_told = False  # a test that orders a shutdown sets it for those who are to be told
    was_connected = None  # when the 140 was read
    told = None  # when the 130 was

    def hear(self, line):
        if line[:3] == b"130":
            assert self.may_be_told, f"nobody ordered a shutdown of this one, but {line!r} came"
            assert self.was_connected, "a 130 came before the 140"
            assert not self.told, "a session was told twice"
            assert line == SHUTDOWN
            self.told = time.monotonic()
            return
        assert line in KNOWN_LINES, f"not a line of the protocol: {line!r}"
        if line == CONNECTED:
            assert not self.was_connected, "a second 140 came"
            self.was_connected = time.monotonic()


class Client(Listener):
    """One connection in the foreground. Lines go out with LF unless a test says otherwise."""

    def __init__(self, target, source=None, rcvbuf=None, mss=None, timeout=5.0):
        family, address = address_of(target)
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if mss:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        if source:
            self.sock.bind((source, 0))
        self.sock.settimeout(limit(timeout))
        self.buffer = b""
        self.opened = time.monotonic()
        self.sock.connect(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def port(self):
        return self.sock.getsockname()[1]

    def send(self, data):
        self.sock.sendall(data)

    def send_line(self, text, end=b"\n"):
        self.send((text if isinstance(text, bytes) else text.encode()) + end)

    def recv_line(self, timeout=5.0, scaled=True):
        """
        The next line with its end, checked by hear(). b"" at the end of the stream,
        TimeoutError when none comes.
        """
        end = time.monotonic() + (limit(timeout) if scaled else timeout)
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no line from the server, only {self.buffer!r}")
            self.sock.settimeout(left)
            try:
                chunk = self.sock.recv(65536)
            except socket.timeout:
                continue
            if not chunk:
                assert not self.buffer, f"the stream ended inside a line: {self.buffer!r}"
                return b""
            self.buffer += chunk
        line, rest = self.buffer.split(b"\n", 1)
        self.buffer = rest
        self.hear(line + b"\n")
        return line + b"\n"

    def expect(self, line, timeout=5.0):
        assert self.recv_line(timeout) == line

    def expect_close(self, timeout=5.0):
        """Nothing more comes, and the stream ends in order."""
        assert self.recv_line(timeout) == b""

    def expect_refusal(self, code, timeout=5.0, after_keep_alives=False):
        """The 4xx line, byte by byte, and then the end of the stream."""
        end = time.monotonic() + limit(timeout)
        line = self.recv_line(timeout)
        while after_keep_alives and line == KEEP_ALIVE and time.monotonic() < end:
            line = self.recv_line(timeout)
        assert line == REFUSALS[code]
        self.expect_close(timeout)

    def expect_silence(self, seconds):
        """Nothing comes and the connection stays."""
        with pytest.raises(TimeoutError):
            line = self.recv_line(seconds, scaled=False)
            pytest.fail(f"silence was expected, {line!r} came")

    def authenticate(self, password=PASSWORD):
        self.expect(ASK_PASSWORD)
        self.send_line(password)
        self.expect(ASK_ID)

    def handshake(self, cid, password=PASSWORD, timeout=5.0):
        """Step by step to 140. Returns the client."""
        self.authenticate(password)
        self.send_line(cid)
        self.expect(CONNECTED, timeout)
        return self

    def outcome(self, cid, password=PASSWORD, timeout=5.0):
        """Answers what is asked and returns 140, the code of the refusal, or 0 for a bare close."""
        while True:
            line = self.recv_line(timeout)
            if line == ASK_PASSWORD:
                self.send_line(password)
            elif line == ASK_ID:
                self.send_line(cid)
            elif line == CONNECTED:
                return 140
            elif line == b"":
                return 0
            else:
                self.expect_close()
                return int(line[:3])

    def answer(self, until, rounds=None):
        """
        Answers keep-alives until that moment (monotonic) or for so many rounds. Returns when each
        of them came.
        """
        times = []
        while (rounds is None or len(times) < rounds) and time.monotonic() < until:
            try:
                line = self.recv_line(max(0.0, until - time.monotonic()), scaled=False)
            except TimeoutError:
                break
            assert line == KEEP_ALIVE, f"a keep-alive was expected, {line!r} came"
            times.append(time.monotonic())
            self.send_line("100")
        return times

    def finish_writing(self):
        self.sock.shutdown(socket.SHUT_WR)

    def rst(self):
        """Closes with a reset instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()


# --- many clients -------------------------------------------------------------------------------


class Member(Listener):
    """One client of a swarm. state: connecting, open, connected, refused, closed, failed."""

    def __init__(self, cid, sock, opened):
        self.cid = cid
        self.sock = sock
        self.opened = opened
        self.buffer = b""
        self.lines = []  # (time, line)
        self.state = "connecting"
        self.code = None  # of the refusal
        self.ended = None  # when the stream ended
        self.error = None
        self.silent = False

    def keep_alives(self):
        return [when for when, line in self.lines if line == KEEP_ALIVE]


class Swarm:
    """Many clients in one thread. Not started by a thread of its own; call pump()."""

    def __init__(self, target, password=PASSWORD, pipelined=False, answer=True, source=None,
                 on_connected=None, on_told=None):
        self.family, self.address = address_of(target)
        self.password = password.encode() if isinstance(password, str) else password
        self.pipelined = pipelined
        self.answer = answer
        self.source = source
        self.on_connected = on_connected
        self.on_told = on_told
        self.members = []
        self.selector = selectors.DefaultSelector()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def add(self, cid, may_be_told=False):
        """Starts to connect one client; it goes on in pump(). cid None: never says a word."""
        sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if self.source:
            sock.bind((self.source, 0))
        if self.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        member = Member(cid, sock, time.monotonic())
        member.may_be_told = may_be_told
        self.members.append(member)
        result = sock.connect_ex(self.address)
        if result not in (0, errno.EINPROGRESS, errno.EAGAIN):
            self._fail(member, OSError(result, os.strerror(result)), registered=False)
            return member
        self.selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, member)
        return member

    def add_all(self, cids, may_be_told=False):
        return [self.add(cid, may_be_told) for cid in cids]

    def say(self, member, text):
        """Sends a line of this client's own accord."""
        self._send(member, text.encode() + b"\n")

    def pump(self, seconds, until=None, scaled=True):
        """
        Runs everyone until the question is answered with true, or for that long; for 0 seconds,
        what is ready now. Returns whether it was answered so.
        """
        end = time.monotonic() + (limit(seconds) if scaled else seconds)
        while until is None or not until():
            left = end - time.monotonic()
            if not self.selector.get_map():
                if until is not None or left <= 0:
                    return False
                time.sleep(min(left, 0.01))
                continue
            for key, events in self.selector.select(max(0.0, min(left, 0.05))):
                self._step(key.data, events)
            if left <= 0:
                return until is not None and until()
        return True

    def settle(self, seconds=10.0):
        """Runs until every client is connected, refused or closed; fails at the deadline."""
        done = self.pump(seconds, lambda: not self.count("connecting", "open"))
        assert done or not self.count("connecting", "open"), "some handshakes never ended"

    def count(self, *states):
        return sum(member.state in states for member in self.members)

    def connected(self):
        return [member for member in self.members if member.state == "connected"]

    def refused(self, code):
        return [member for member in self.members if member.code == code]

    def drop(self, member, rst=False):
        """Closes one client from this side."""
        if member.state in ("closed", "refused", "failed"):
            return
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(member.sock)
        if rst:
            member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        member.sock.close()
        member.state = "closed"
        member.ended = time.monotonic()

    def close(self):
        for member in self.members:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(member.sock)
            member.sock.close()
        self.selector.close()

    def _step(self, member, events):
        if member.state == "connecting" and events & selectors.EVENT_WRITE:
            error = member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._fail(member, OSError(error, os.strerror(error)))
                return
            member.state = "open"
            self.selector.modify(member.sock, selectors.EVENT_READ, member)
            if self.pipelined and member.cid is not None:
                self._send(member, self.password + b"\n" + member.cid.encode() + b"\n")
        if events & selectors.EVENT_READ:
            self._read(member)

    def _read(self, member):
        try:
            chunk = member.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(member, error)
            return
        if not chunk:
            assert not member.buffer, f"the stream ended inside a line: {member.buffer!r}"
            self.selector.unregister(member.sock)
            member.sock.close()
            member.ended = time.monotonic()
            member.state = "refused" if member.code else "closed"
            return
        now = time.monotonic()
        *lines, member.buffer = (member.buffer + chunk).split(b"\n")
        for line in lines:
            self._take(member, line + b"\n", now)

    def _take(self, member, line, now):
        member.hear(line)
        assert member.code is None, f"{line!r} came behind a refusal"
        member.lines.append((now, line))
        if line == ASK_PASSWORD and not self.pipelined and member.cid is not None:
            self._send(member, self.password + b"\n")
        elif line == ASK_ID and not self.pipelined:
            self._send(member, member.cid.encode() + b"\n")
        elif line == CONNECTED:
            member.state = "connected"
            if self.on_connected:
                self.on_connected(member)
        elif line == KEEP_ALIVE and self.answer and not member.silent:
            self._send(member, b"100\n")
        elif line == SHUTDOWN and self.on_told:
            self.on_told(member)
        elif line[:1] == b"4":
            member.code = int(line[:3])

    def _send(self, member, data):
        try:
            sent = member.sock.send(data)
            assert sent == len(data), "a client's answer did not fit into an empty socket"
        except OSError as error:
            # The server may just have closed; its last line is still to be read.
            member.error = error

    def _fail(self, member, error, registered=True):
        if registered:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(member.sock)
        member.sock.close()
        member.error = error
        member.ended = time.monotonic()
        member.state = "refused" if member.code else "failed"


class Witness:
    """
    Innocent clients in a thread of their own. While the test does its worst, they answer every
    keep-alive; check() says whether any of them was lost or left alone for too long.
    """

    def __init__(self, target, count=5, prefix="witness"):
        self.swarm = Swarm(target)
        self.swarm.add_all(f"{prefix}-{n}" for n in range(count))
        self.swarm.settle()
        assert self.swarm.count("connected") == count, "the witnesses could not even connect"
        self._stop = False
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _run(self):
        try:
            self.swarm.pump(3600, lambda: self._stop)
        except BaseException as failure:  # shown by check(), in the thread that can fail the test
            self._failure = failure

    def stop(self):
        if self._thread.is_alive():
            self._stop = True
            self._thread.join()
        self.swarm.close()

    def keep_alives(self):
        return min(len(member.keep_alives()) for member in self.swarm.members)

    def wait_asked(self, more=1, seconds=5.0):
        """Waits until each witness was asked that many times more."""
        goal = self.keep_alives() + more
        wait_until(lambda: self._failure or self.keep_alives() >= goal, seconds,
                   f"{more} more keep-alives for every witness")
        self.check()

    def check(self, max_gap=None):
        """Nobody lost; with max_gap, nobody waited longer than that for a keep-alive."""
        if self._failure:
            raise self._failure
        for member in self.swarm.members:
            assert member.state == "connected", \
                f"{member.cid} was lost: {member.state} {member.code} {member.error}"
            if max_gap is not None:
                times = [member.was_connected, *member.keep_alives(), time.monotonic()]
                gap = max(later - earlier for earlier, later in zip(times, times[1:]))
                assert gap <= limit(max_gap), f"{member.cid} heard nothing for {gap:.2f} s"


# --- odds and ends ------------------------------------------------------------------------------


def free_port():
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def copy_descriptor(pid, fd):
    """A copy of another process's descriptor, as a socket."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc.syscall(438, pidfd, fd, 0)  # pidfd_getfd
        if copy < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return socket.socket(fileno=copy)
    finally:
        os.close(pidfd)


def server_side_of(server, client):
    """A copy of the server's end of this client's TCP connection."""
    for fd in os.listdir(f"/proc/{server.pid}/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/{server.pid}/fd/{fd}").startswith("socket:"):
                continue
            sock = copy_descriptor(server.pid, int(fd))
            with contextlib.suppress(OSError):
                if sock.getpeername() == client.sock.getsockname():
                    return sock
            sock.close()
    raise AssertionError("the server has no such connection")


_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000


def in_namespace_of(pid, kind, work):
    """
    Does the work in the "net" or "mnt" namespace of that process, in a thread of its own, and
    returns its result. A socket made there stays there.
    """
    results = queue.Queue()

    def enter_and_work():
        try:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            try:
                if kind == "mnt" and _libc.unshare(_CLONE_FS) != 0:
                    raise OSError(ctypes.get_errno(), "unshare")
                if _libc.setns(fd, _CLONE_NEWNS if kind == "mnt" else _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            results.put((work(), None))
        except BaseException as failure:
            results.put((None, failure))

    thread = threading.Thread(target=enter_and_work)
    thread.start()
    thread.join()
    result, failure = results.get()
    if failure:
        raise failure
    return result


def can_unshare(*flags):
    """May this user make such namespaces?"""
    return subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode == 0


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_mounts = pytest.mark.skipif(os.geteuid() != 0 or not can_unshare("-m"),
                                  reason="may not make a private mount namespace")
needs_network = pytest.mark.skipif(os.geteuid() != 0 or not can_unshare("-n"),
                                   reason="may not make a private network namespace")


class Notifications:
    """The other end of sd_notify: a datagram socket whose path goes into NOTIFY_SOCKET."""

    def __init__(self, folder):
        self.path = str(pathlib.Path(folder) / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.received = collections.deque()

    def close(self):
        self.sock.close()

    def wait(self, pattern, seconds=5.0):
        """Takes messages until one matches; returns (when, text). Earlier ones are gone then."""
        end = time.monotonic() + limit(seconds)
        seen = []
        while True:
            left = end - time.monotonic()
            assert left > 0, f"no notification like {pattern!r}, only {seen}"
            self.sock.settimeout(left)
            try:
                text = self.sock.recv(65536).decode()
            except socket.timeout:
                continue
            if re.search(pattern, text, re.M):
                return time.monotonic(), text
            seen.append(text)
