"""Rows E: reloads that must not happen, too many of them, passwords that change, and signals."""

import os
import random
import signal
import threading
import time

import pytest

from harness import PASSWORD, Client, ini_text, limit, merged, run, wait_until
from oracle import fault

GOOD = ini_text(merged(None))
BROKEN = {
    "unknown-key": GOOD + "[limits]\nhandshake_time = 1s\n",
    "line-of-250-bytes": GOOD + "[control]\nsocket = " + "x" * 240 + "\n",
    "password-cut-by-a-comment": GOOD.replace(f"password = {PASSWORD}", "password = a ;b"),
    "key-twice": GOOD + "[limits]\nhandshake_timeout = 1s\nhandshake_timeout = 2s\n",
    "nul": GOOD.replace("10h", "10\0h"),
    "truncated": GOOD[:len(GOOD) // 2].rstrip() + "\n[aut",
    "empty": "",
    "garbage": bytes(range(256)) * 40,
    "password-gone": GOOD.replace(f"password = {PASSWORD}", ""),
}


def put(server, make):
    """Replaces the ini file by something that is no file."""
    server.ini.unlink()
    make(server.ini)


STRANGE = {
    "missing": lambda path: None,
    "directory": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "dangling-link": lambda path: path.symlink_to("nowhere"),
}


def refused_reload(case, before):
    mark = case.server.mark_log()
    case.server.signal(signal.SIGHUP)
    found = case.server.wait_log(r"reload_failed error=(.*)", start=mark)
    assert case.control.get("/v1/status")[1]["keepalive"] == before
    with Client(case.server) as client:
        assert client.outcome("after") == 140
    return found[1]


@fault("E01", "a configuration that is wrong in every way there is", rounds=1, full=20)
def test_broken_files_change_nothing(case):
    server = case.start()
    case.allow("every error of every file is a line", log_lines=100 * case.rounds)
    before = case.control.get("/v1/status")[1]["keepalive"]
    for _ in range(case.rounds):
        for name, text in BROKEN.items():
            server.rewrite_ini(ini=text)
            assert "cliser.ini" in refused_reload(case, before), name
        for make in STRANGE.values():
            put(server, make)
            refused_reload(case, before)
            if server.ini.is_dir():
                server.ini.rmdir()
            else:
                server.ini.unlink(missing_ok=True)
            server.rewrite_ini()
    server.reload()


@fault("E02", "a thousand SIGHUPs in a second", rounds=1, full=20)
def test_a_storm_of_hangups_is_few_reloads(case):
    server = case.start()
    case.allow("a reload is two lines", log_lines=3000 * case.rounds)
    for _ in range(case.rounds):
        mark = server.mark_log()
        for _ in range(1000):
            server.signal(signal.SIGHUP)
        server.wait_log(r"\breloaded\b", start=mark)
    server.reload({"limits": {"handshake_timeout": "7s"}})


@fault("E03", "passwords that change while clients come", rounds=5, full=200)
def test_rotation_disconnects_nobody(case):
    server = case.start()
    stop = threading.Event()
    outcomes = []
    passwords = [PASSWORD]

    def come_and_go():
        number = 0
        while not stop.is_set():
            with Client(server) as client:
                outcomes.append(client.outcome(f"rotating-{number % 10}", passwords[0]))
            number += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for number in range(case.rounds):
            # Both are taken for a while, then the clients change, then the old one goes.
            old, new = passwords[0], f"secret-{number}"
            server.reload({"auth": {"password": [old, new]}})
            passwords[0] = new
            time.sleep(0.02)  # for a client that still had the old one
            server.reload({"auth": {"password": new}})
    finally:
        stop.set()
        thread.join()
    case.allow("each client and each reload is a line", log_lines=10 * len(outcomes) + 1000)
    assert len(outcomes) > case.rounds
    # Who had asked for the password before it changed has the old one, and its own fault.
    assert set(outcomes) <= {140, 421}
    with Client(server) as client:
        assert client.outcome("late", PASSWORD) == 410


OPEN_TO_OTHERS = {"all-read": 0o644, "all-write": 0o602, "group-writes": 0o660}


@pytest.mark.parametrize("mode", OPEN_TO_OTHERS.values(), ids=OPEN_TO_OTHERS.keys())
@fault("E04", "a password file that others can read or write", rounds=1, full=20)
def test_open_secret_files_are_refused(case, folder, mode):
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    server = case.start({"auth": {"password": None, "password_file": "password"}})
    before = case.control.get("/v1/status")[1]["keepalive"]
    for _ in range(case.rounds):
        secret.chmod(mode)
        assert "chmod" in refused_reload(case, before)
        result = run("-t", "cliser.ini", folder=server.folder)
        assert result.returncode == 2 and "chmod" in result.stderr
        secret.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(secret, 12345, 12345)
            assert "chown" in refused_reload(case, before)
            os.chown(secret, 0, 0)
    server.reload()


@fault("E05", "signals at random while clients come and go", rounds=30, full=500)
def test_signals_that_mean_nothing_change_nothing(case):
    server = case.start()
    case.allow("each reload is two lines", log_lines=10 * case.rounds + 200)
    dice = random.Random(5)
    for number in range(case.rounds):
        server.signal(dice.choice([signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE,
                                   signal.SIGXFSZ, signal.SIGCONT, signal.SIGWINCH]))
        with Client(server) as client:
            assert client.outcome(f"signal-{number}") == 140


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT],
                         ids=["term", "int", "quit"])
@fault("E05", "a signal to stop, at any moment", rounds=2, full=50)
def test_every_way_to_stop_ends_with_0_in_time(start_server, request, last):
    for number in range(request.node.get_closest_marker("fault").kwargs["rounds"]):
        server = start_server({"server": {"drain": "300ms"}})
        clients = [Client(server).handshake(f"stop-{n}") for n in range(5)]
        half = Client(server)
        time.sleep(random.Random(number).random() * 0.02)  # any moment will do
        began = time.monotonic()
        assert server.stop(last, 10) == 0
        assert time.monotonic() - began < limit(5)
        for client in [*clients, half]:
            client.close()
        wait_until(lambda: all(not row["cstatus"] for row in server.rows().values()), 1)
