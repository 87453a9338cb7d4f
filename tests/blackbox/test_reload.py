"""SIGHUP: what changes for whom, and that a broken file changes nothing."""

import os
import re
import resource
import signal
import time

import pytest

from harness import (KEEP_ALIVE, Client, Swarm, Witness, connected_ids, ini_text, limit, merged,
                     wait_until, write_secret)


def outcome(server, password, cid="probe"):
    with Client(server) as client:
        return client.outcome(cid, password)


# --- what a reload changes ----------------------------------------------------------------------


def test_reload_swaps_passwords_and_disconnects_nobody(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    with Witness(server) as witness:
        server.reload({"auth": {"password": ["secret", "next"]}})
        assert (outcome(server, "secret"), outcome(server, "next")) == (140, 140)
        server.reload({"auth": {"password": "next"}})
        assert (outcome(server, "secret"), outcome(server, "next")) == (410, 140)
        witness.wait_asked(3)
        witness.check(max_gap=1.0)


def test_reload_reads_password_files_again(start_server, folder):
    write_secret(folder / "pw", "old\n")
    server = start_server({"auth": {"password": None, "password_file": "pw"}})
    assert outcome(server, "old") == 140
    write_secret(folder / "pw", "new\n")
    server.reload()
    assert (outcome(server, "old"), outcome(server, "new")) == (410, 140)


def test_reload_in_the_middle_of_a_handshake_hurts_nobody(server):
    with Client(server) as before_password, Client(server) as before_id:
        before_id.authenticate()
        server.reload({"auth": {"password": "next"}})
        before_id.send_line("web-1")
        before_id.expect(b"140: Connected\r\n")
        assert before_password.outcome("web-2", "next") == 140


def test_reload_changes_the_interval_for_everyone(start_server):
    server = start_server({"keepalive": {"interval": "10h"}})
    with Client(server).handshake("old") as old:
        server.reload({"keepalive": {"interval": "200ms"}})
        with Client(server).handshake("new") as new:
            for client in (new, old):
                assert len(client.answer(time.monotonic() + limit(10), rounds=3)) == 3
        server.reload({"keepalive": {"interval": "10h"}})
        old.answer(time.monotonic() + 0.5)  # one may still have been due
        old.expect_silence(0.6)


def test_reload_changes_misses_and_require_reply(start_server):
    server = start_server({"keepalive": {"interval": "100ms", "misses": 5, "require_reply": "no"}})
    with Client(server).handshake("web-1") as client:
        for _ in range(7):
            client.expect(KEEP_ALIVE)
        server.reload({"keepalive": {"misses": 1, "require_reply": "yes"}})
        client.expect_refusal(408, after_keep_alives=True)


def test_reload_changes_the_handshake_timeout(start_server):
    server = start_server({"limits": {"handshake_timeout": "10h"}})
    server.reload({"limits": {"handshake_timeout": "200ms"}})
    with Client(server) as client:
        client.expect(b"110: qual a senha\r\n")
        client.expect_refusal(408, timeout=3)


def test_reload_changes_max_pending(start_server):
    server = start_server({"limits": {"max_pending": 1000}})
    waiting = [Client(server) for _ in range(3)]
    for client in waiting:
        client.expect(b"110: qual a senha\r\n")
    server.reload({"limits": {"max_pending": 3}})
    assert outcome(server, "secret") == 450
    for client in waiting:
        client.close()
    wait_until(lambda: outcome(server, "secret") == 140)


def test_reload_that_raises_max_clients_finds_the_descriptors_for_it(start_server):
    server = start_server({"server": {"max_clients": 10}},
                          limits={resource.RLIMIT_NOFILE: (100, 5000)})
    server.reload({"server": {"max_clients": 300}})
    with Swarm(server) as swarm:
        for number in range(200):
            swarm.add(f"web-{number}")
            swarm.settle()
        assert [member.code for member in swarm.members if member.code] == []
        assert len(connected_ids(server.db)) == swarm.count("connected") == 200


def test_reload_changes_log_level_and_format(server):
    assert outcome(server, "secret", "first") == 140
    server.wait_log(r" info connected .*cid=first")
    server.reload({"log": {"format": "json"}})
    assert outcome(server, "secret", "second") == 140
    server.wait_log(r'^\{.*"event": ?"connected".*"second"')
    server.rewrite_ini({"log": {"level": "error"}})
    server.signal(signal.SIGHUP)

    def is_quiet():
        mark = server.mark_log()
        assert outcome(server, "secret", "third") == 140
        time.sleep(0.05)  # the line would have been written before the 140
        return server.find_log("third", start=mark) is None

    wait_until(is_quiet, what="silence at level error")
    server.reload({"log": {"level": "debug", "format": "text"}})
    assert outcome(server, "secret", "fourth") == 140
    server.wait_log(r" connected .*cid=fourth")


def test_reload_without_a_change_changes_nothing(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    before = server.fds()
    with Witness(server) as witness:
        for _ in range(10):
            server.reload()
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
        assert outcome(server, "secret") == 140
    wait_until(lambda: server.fds() <= before)


# --- what it cannot change ----------------------------------------------------------------------


@pytest.mark.parametrize("section,key,value", [
    ("registry", "path", "elsewhere.db"), ("registry", "store", "memory"),
    ("server", "listen", "127.0.0.1:1"), ("server", "user", "root"),
    ("server", "reuse_port", "yes")])
def test_key_that_needs_a_restart_is_warned_about_and_the_rest_applied(server, section, key, value):
    mark = server.mark_log()
    server.reload({section: {key: value}, "auth": {"password": "next"}})
    server.wait_log(rf" warn .*\b{key}\b", start=mark)
    assert (outcome(server, "secret"), outcome(server, "next", "web-1")) == (410, 140)
    assert "web-1" in server.rows()
    assert not (server.folder / "elsewhere.db").exists()


# --- a broken file ------------------------------------------------------------------------------

GOOD = ini_text(merged({"auth": {"password": "next"}, "keepalive": {"interval": "100ms"}}))
LINES = GOOD.count("\n")

# Each with the new password in it, so that a half-applied file shows; and where the error is.
BROKEN = {
    "unknown-key": (GOOD + "\n[server]\ncolour = blue\n", LINES + 3),
    "unknown-section": (GOOD + "\n[colours]\n", LINES + 2),
    "bad-value": (GOOD + "\n[limits]\nhandshake_timeout = soon\n", LINES + 3),
    "long-line": (GOOD + "\n; " + "x" * 250 + "\n", LINES + 2),
    "cut-password": (GOOD + "\n[auth]\npassword = a ; b\n", LINES + 3),
    "duplicate": (GOOD + "\n[keepalive]\ninterval = 5s\n", LINES + 3),
    "nul": (GOOD + "\n[log]\nlevel = in\0fo\n", LINES + 3),
    "missing-password-file": (GOOD + "\n[auth]\npassword_file = nowhere\n", LINES + 3),
    "truncated": (GOOD[:GOOD.index("interval") + 4], None),
    "empty": ("", None),
    "binary": (bytes(range(256)) * 8, None),
}


@pytest.mark.parametrize("text,number", BROKEN.values(), ids=BROKEN.keys())
def test_reload_of_a_broken_file_leaves_everything_as_it_was(start_server, text, number):
    server = start_server({"keepalive": {"interval": "100ms"}})
    with Witness(server) as witness:
        server.reload(ini=text, event="reload_failed")
        if number:
            server.wait_log(re.escape(str(server.ini)) + rf":{number}\b")
        assert (outcome(server, "next"), outcome(server, "secret")) == (410, 140)
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
        server.reload()  # and back to good
        assert outcome(server, "secret") == 140


@pytest.mark.parametrize("make", [
    pytest.param(lambda path: None, id="missing"),
    pytest.param(lambda path: path.mkdir(), id="directory"),
    pytest.param(lambda path: os.mkfifo(path), id="fifo"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="dev-zero"),
])
def test_reload_of_a_thing_that_is_no_file_does_not_hang(start_server, make):
    server = start_server({"keepalive": {"interval": "100ms"}})
    with Witness(server) as witness:
        server.ini.unlink()
        make(server.ini)
        mark = server.mark_log()
        server.signal(signal.SIGHUP)
        server.wait_log(r"\breload_failed\b", start=mark)
        assert outcome(server, "secret") == 140
        witness.wait_asked(3)
        witness.check(max_gap=1.0)


def test_all_errors_of_a_broken_file_are_logged(server):
    mark = server.mark_log()
    server.reload(ini=GOOD + "\n[log]\ncolour = blue\nlevel = loud\n", event="reload_failed")
    for number in (LINES + 3, LINES + 4):
        server.wait_log(re.escape(str(server.ini)) + rf":{number}\b", start=mark)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"], ids=["as-before", "now-loopback"])
@pytest.mark.parametrize("key,value", [("password", "cliser"), ("password_file", "shipped")])
def test_shipped_password_is_not_taken_beyond_loopback_by_a_reload(start_server, folder, key, value,
                                                                   listen):
    """Where the server listens is what the start said; the new file only says where it will."""
    write_secret(folder / "shipped", "cliser\n")
    server = start_server({"server": {"listen": "0.0.0.0:0"}})
    server.address = ("127.0.0.1", server.port)
    server.reload({"server": {"listen": listen}, "auth": {"password": None, key: value}},
                  event="reload_failed")
    number = server.ini.read_text().splitlines().index(f"{key} = {value}") + 1
    server.wait_log(rf"\breload_failed\b.*{re.escape(str(server.ini))}:{number}\b")
    assert (outcome(server, "cliser"), outcome(server, "secret")) == (410, 140)
    assert not server.find_log(r"\b(reloaded|restart_needed)\b")


# --- under stress -------------------------------------------------------------------------------


def test_burst_of_hangups_is_survived_and_the_last_one_counts(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    before = server.fds()
    with Witness(server) as witness:
        for number in range(200):
            if number == 199:
                server.rewrite_ini({"auth": {"password": "last"}})
            server.signal(signal.SIGHUP)
        wait_until(lambda: outcome(server, "last") == 140, what="the last password")
        assert outcome(server, "secret") == 410
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
    wait_until(lambda: server.fds() <= before)


def test_reload_without_descriptors_keeps_the_old_configuration(start_server, folder):
    write_secret(folder / "pw", "secret\n")
    server = start_server({"auth": {"password": None, "password_file": "pw"},
                           "keepalive": {"interval": "100ms"}})
    with Witness(server) as witness:
        used = max(int(fd) for fd in os.listdir(f"/proc/{server.pid}/fd")) + 1
        old = server.set_limit(resource.RLIMIT_NOFILE, used)
        holes = used - server.fds()
        clients = [Client(server) for _ in range(holes)]
        for client in clients:
            client.expect(b"110: qual a senha\r\n")
        write_secret(folder / "pw", "next\n")
        mark = server.mark_log()
        server.signal(signal.SIGHUP)
        server.wait_log(r"\breload_failed\b", start=mark)
        server.set_limit(resource.RLIMIT_NOFILE, old)
        for client in clients:
            client.close()
        wait_until(lambda: outcome(server, "secret") == 140)
        assert outcome(server, "next") == 410
        witness.wait_asked(3)
        witness.check()
        server.reload()
        assert outcome(server, "next") == 140
