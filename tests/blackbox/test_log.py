"""The log: its forms, what never stands in it, and that it never holds the server up."""

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import time

import pytest

from harness import (ASK_PASSWORD, Client, Witness, limit, needs_mounts, reading, wait_until,
                     write_secret)

LEVELS = {"error", "warn", "info", "debug"}
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn|info|debug) [a-z_]+"
    r"( [a-z_]+=([^\s\"=\\]+|\"([^\"\\]|\\.)*\"))*")


def outcome(server, cid, password="secret"):
    with Client(server) as client:
        return client.outcome(cid, password)


def busy_session(server):
    """Something of everything that clients do, among it what nobody should."""
    outcome(server, "web-1")
    outcome(server, "web-1", "wrong")
    outcome(server, "\x1b[2J\x1b]0;owned\x07")
    outcome(server, '"quoted\\" and spaced" cid=forged')
    outcome(server, "\u202eexe.elpmis")
    outcome(server, "tab\tand\rcr")
    Client(server).rst()
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send(b"\x1b[31mred\n")
        client.expect_refusal(410)
    with Client(server) as client:
        client.handshake("web-2")
        client.send(b"\x1b[31mred\n" * 9)
        client.expect_refusal(400)
    server.reload()


@pytest.mark.parametrize("level", ["info", "debug"])
def test_every_json_line_is_one_object_with_time_level_and_event(start_server, level):
    server = start_server({"log": {"format": "json", "level": level}})
    busy_session(server)
    assert server.stop() == 0
    events = []
    for line in server.log:
        entry = json.loads(line)
        assert isinstance(entry, dict)
        assert entry["level"] in LEVELS
        assert entry["event"]
        when = datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
        assert abs(when.timestamp() - time.time()) < 3600
        events.append(entry["event"])
    assert {"start", "ready", "connected", "disconnected", "stopping", "stopped"} <= set(events)
    ready = [json.loads(line) for line in server.log if '"ready"' in line]
    assert len(ready) == 1
    assert ready[0]["message"] == f"ready: 127.0.0.1:{server.port}"


@pytest.mark.parametrize("level", ["info", "debug"])
def test_every_text_line_is_time_level_event_and_fields(start_server, level):
    server = start_server({"log": {"level": level}})
    busy_session(server)
    assert server.stop() == 0
    plain = [line for line in server.log if not TEXT_LINE.fullmatch(line)]
    assert plain == [f"ready: 127.0.0.1:{server.port}"]
    for event in ("start", "connected", "disconnected", "stopping", "stopped"):
        assert server.find_log(rf" {event}\b"), f"no event {event}"
    connected = server.find_log(r" info connected .*").group()
    assert re.search(r"\bserial=\d+\b", connected) and re.search(r"\bcid=web-1\b", connected)
    assert re.search(r"\breason=left\b", server.log_text())


@pytest.mark.parametrize("form", ["text", "json"])
def test_peer_bytes_are_escaped(start_server, form):
    server = start_server({"log": {"level": "debug", "format": form}})
    busy_session(server)
    assert server.stop() == 0
    assert re.fullmatch(rb"[\x20-\x7e\n]*", server.raw_log)
    # Quotes in an ID end no field: the line still reads as one of ours, or as one JSON object.
    forged = [line for line in server.log if "forged" in line]
    assert forged
    for line in forged:
        assert json.loads(line) if form == "json" else TEXT_LINE.fullmatch(line)


@pytest.mark.parametrize("form", ["text", "json"])
def test_password_never_stands_in_the_log(start_server, folder, form):
    write_secret(folder / "pw", "from-a-file-Xyzzy\n")
    server = start_server({"auth": {"password": "inline-Xyzzy", "password_file": "pw"},
                           "log": {"level": "debug", "format": form}})
    assert outcome(server, "web-1", "inline-Xyzzy") == 140
    assert outcome(server, "web-1", "from-a-file-Xyzzy") == 140
    assert outcome(server, "web-1", "mistyped-Xyzzy") == 410
    with Client(server) as client:
        client.send(b"inline-Xyzzy\ninline-Xyzzy but as an id\n")
        client.expect(ASK_PASSWORD)
        client.expect(b"120: qual o ID\r\n")
        client.expect_refusal(420)
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send(b"overlong-Xyzzy" * 30)
        client.expect_refusal(400)
    server.reload({"auth": {"password": "after-reload-Xyzzy"}})
    server.reload({"auth": {"password": "cut ; Xyzzy"}}, event="reload_failed")
    assert server.stop() == 0
    leaks = [line for line in server.log if "Xyzzy" in line and "as an id" not in line]
    assert not leaks


@pytest.mark.parametrize("data", [b"inline-Xyzzy\n", b"inline-Xyzzy\nweb-1\n", b"mistyped-Xyzzy\n",
                                  b"inline-Xyzzy\ninline-Xyzzy\n", b"inline-Xyzzy"],
                         ids=["password", "password-and-id", "wrong", "password-twice", "unended"])
def test_password_of_a_client_that_vanishes_never_stands_in_the_log(start_server, folder, data):
    server = start_server({"server": {"listen": f"127.0.0.1:0, unix:{folder}/wire.sock"},
                           "auth": {"password": "inline-Xyzzy"}, "log": {"level": "debug"}})
    for number in range(100):
        for target in (server, folder / "wire.sock"):
            client = Client(target)
            client.send(data)
            if number % 2 or target is not server:
                client.close()
            else:
                client.rst()
    assert server.stop() == 0
    expected = r"cid=inline-Xyzzy " if data.count(b"inline") == 2 else "$^"
    leaks = [line for line in server.log if "Xyzzy" in line and not re.search(expected, line)]
    assert not leaks, leaks[:3]


def test_level_error_is_silent_but_for_the_ready_line(start_server):
    server = start_server({"log": {"level": "error"}})
    busy = [outcome(server, f"web-{n}") for n in range(5)]
    assert busy == [140] * 5
    assert server.stop() == 0
    assert server.log == [f"ready: 127.0.0.1:{server.port}"]


def test_events_that_clients_cause_are_limited_and_counted(start_server):
    server = start_server()
    mark = server.mark_log()
    start = time.monotonic()
    for number in range(150):
        assert outcome(server, f"web-{number}", "wrong") == 410
    seconds = time.monotonic() - start
    with server._news:
        lines = [line for line in server.log[mark:] if " refused " in line]
    assert 1 <= len(lines) <= 5 * (seconds + 2)


def test_level_debug_is_not_limited(start_server):
    server = start_server({"log": {"level": "debug"}})
    for number in range(60):
        assert outcome(server, f"web-{number}", "wrong") == 410
    wait_until(lambda: len([line for line in server.log if " refused " in line]) >= 60)


# --- an end that does not take it ---------------------------------------------------------------


def test_full_pipe_delays_nobody_and_the_loss_is_reported(start_server):
    server = start_server({"log": {"level": "debug"},
                           "keepalive": {"interval": "100ms", "require_reply": "yes"}},
                          stderr_pipe_bytes=4096)
    with Witness(server) as witness:
        server.pause_log()
        for number in range(300):
            start = time.monotonic()
            assert outcome(server, f"web-{number}") == 140
            assert time.monotonic() - start < limit(1)
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
        server.resume_log()
        found = server.wait_log(r" log_lost lines=(\d+)", seconds=10)
        assert int(found.group(1)) > 0
        witness.check()
    assert server.stop() == 0
    # No line was torn.
    assert [line for line in server.log if not TEXT_LINE.fullmatch(line)] == [
        f"ready: 127.0.0.1:{server.port}"]


def test_full_pipe_does_not_hold_up_a_stop(start_server):
    server = start_server({"log": {"level": "debug"}}, stderr_pipe_bytes=4096)
    server.pause_log()
    for number in range(100):
        assert outcome(server, f"web-{number}") == 140
    server.signal(signal.SIGTERM)
    assert server.proc.wait(limit(5)) == 0


def test_pipe_that_nobody_holds_any_more_is_no_end(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    with Witness(server) as witness:
        server.close_log()
        for number in range(50):
            assert outcome(server, f"web-{number}") == 140
        witness.wait_asked(3)
        witness.check(max_gap=1.0)


@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)], ids=["stderr", "both", "all"])
def test_server_started_without_standard_descriptors_serves_and_keeps_its_database(
        start_server, folder, closed):
    server = start_server({"server": {"listen": f"unix:{folder}/wire.sock"},
                           "log": {"level": "debug"}}, without_fds=closed, wait=False)

    def is_up():
        with contextlib.suppress(OSError), Client(folder / "wire.sock") as client:
            return client.outcome("web-0") == 140
        return False

    wait_until(is_up, seconds=15, what="a server without standard descriptors")
    # Anything else that took their numbers would get what is meant for a person to read.
    for fd in closed:
        assert os.readlink(f"/proc/{server.pid}/fd/{fd}") == "/dev/null"
    for number in range(30):
        with Client(folder / "wire.sock") as client:
            client.handshake(f"web-{number}")
    for is_running in (True, False):
        with reading(server.db) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        assert set(server.rows()) == {f"web-{number}" for number in range(30)}
        if is_running:
            assert server.stop() == 0
    for path in folder.glob("cliser.db*"):
        assert b"connected serial" not in path.read_bytes()


# --- syslog -------------------------------------------------------------------------------------


def syslog_wrap(folder):
    """The command that shows folder/syslog.sock to one server as /dev/log, and to nobody else."""
    return ["unshare", "-m", "sh", "-ec", f"""
        mkdir -p {folder}/dev
        mount -t tmpfs none {folder}/dev
        cp -a /dev/null /dev/zero /dev/random /dev/urandom {folder}/dev/
        ln -s {folder}/syslog.sock {folder}/dev/log
        mount --bind {folder}/dev /dev
        exec "$@" """, "sh"]


def syslog_listen(folder):
    path = folder / "syslog.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(limit(5))
    return sock


def syslog_until(sock, pattern):
    """Messages up to the one that matches, which is the last."""
    messages = []
    while True:
        messages.append(sock.recv(65536).decode())
        if re.search(pattern, messages[-1]):
            return messages


@needs_mounts
@pytest.mark.parametrize("form", ["text", "json"])
def test_syslog_gets_every_event_with_its_severity(start_server, folder, form):
    with contextlib.closing(syslog_listen(folder)) as daemon:
        server = start_server({"log": {"target": "syslog", "format": form}},
                              wrap=syslog_wrap(folder))
        assert outcome(server, "web-1") == 140
        messages = syslog_until(daemon, r"\bdisconnected\b.*web-1")
        for message in messages:
            found = re.fullmatch(
                r"<(\d+)>(?:\w{3} [ \d]\d \d\d:\d\d:\d\d )?cliserd\[(\d+)\]: (.*)\n?", message)
            assert found, message
            facility, severity = divmod(int(found.group(1)), 8)
            assert facility == 3 and severity in (3, 4, 6, 7)
            assert int(found.group(2)) == server.pid
            if form == "json":
                assert json.loads(found.group(3))["event"]
        assert not server.find_log(r"\bconnected\b"), "events go to one place"


@needs_mounts
def test_syslog_daemon_that_is_away_holds_nobody_up_and_is_found_again(start_server, folder):
    daemon = syslog_listen(folder)
    server = start_server({"log": {"target": "syslog", "level": "debug"},
                           "keepalive": {"interval": "100ms"}}, wrap=syslog_wrap(folder))
    with Witness(server) as witness:
        daemon.close()
        for number in range(20):
            assert outcome(server, f"web-{number}") == 140
        daemon = syslog_listen(folder)
        assert outcome(server, "afterwards") == 140
        messages = syslog_until(daemon, "afterwards")
        assert any("log_lost" in message for message in messages)
        # And a daemon that is there but does not read.
        for number in range(300):
            assert outcome(server, f"more-{number}") == 140
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
    daemon.close()


@needs_mounts
def test_syslog_that_is_not_there_at_the_start_is_no_reason_to_fail(start_server, folder):
    server = start_server({"log": {"target": "syslog"}}, wrap=syslog_wrap(folder))
    assert outcome(server, "web-1") == 140
    with contextlib.closing(syslog_listen(folder)) as daemon:
        assert outcome(server, "web-2") == 140
        syslog_until(daemon, "web-2")
