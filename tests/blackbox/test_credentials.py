"""
[credential NAME]: passwords for some IDs only, which of them a client came with, rotation, and the
files that secrets are in.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

from control import Control
from harness import (ASK_ID, ASK_PASSWORD, BIN, PASSWORD, Client, Witness, needs_root, run,
                     sanitized, write_secret)

WEB = {"password": "for-web", "ids": "web-*, cache-[0-9]"}
NAS = {"password": ["for-nas", "old-nas"], "ids": ["nas-1", "disk-*"]}
SECTIONS = {"credential web": WEB, "credential nas": NAS}


@pytest.fixture
def check(bin_dir, folder):
    """Runs cliserd -t on a text and returns the errors as {line: text}."""

    def errors_of(text, expect=2):
        result = run("-t", "test.ini", folder=folder, ini=text)
        assert result.returncode == expect, result.stdout + result.stderr
        found = re.findall(r"^cliserd: test\.ini:(\d+): (.*)$", result.stderr, re.MULTILINE)
        assert len(found) == len(result.stderr.splitlines())
        assert len({line for line, _ in found}) == len(found), found
        return {int(line): text for line, text in found}

    return errors_of


def outcome(server, cid, password):
    with Client(server) as client:
        return client.outcome(cid, password)


def ctl(folder, *args):
    return subprocess.run([BIN / "cliserctl", "--socket", folder / "cliser.sock", *args],
                          capture_output=True, text=True, check=True).stdout


def logins(control, credential, password, name="cliser_credential_logins_total"):
    """What the metrics say about one password."""
    text = control.request("GET", "/metrics").body.decode()
    return float(re.search(rf'^{name}{{credential="{credential}",password="{password}"}} (\S+)$',
                           text, re.MULTILINE).group(1))


# --- who may have which ID ----------------------------------------------------------------------


@pytest.mark.parametrize("password,cid,code", [
    ("for-web", "web-1", 140), ("for-web", "web-", 140), ("for-web", "cache-7", 140),
    ("for-web", "cache-77", 422), ("for-web", "web", 422), ("for-web", "WEB-1", 422),
    ("for-web", "xweb-1", 422), ("for-web", "nas-1", 422), ("for-web", "web-*", 420),
    ("for-nas", "nas-1", 140), ("old-nas", "disk-a", 140), ("old-nas", "nas-2", 422),
    ("old-nas", "web-1", 422), (PASSWORD, "nas-1", 140), (PASSWORD, "other", 140),
    ("for-", "web-1", 410), ("for-web ", "web-1", 410), ("for-webfor-nas", "web-1", 410),
])
def test_password_covers_its_ids_only(start_server, password, cid, code):
    server = start_server(SECTIONS)
    assert outcome(server, cid, password) == code
    if code == 422:
        assert server.rows() == {}
        server.wait_log(rf" refused .*id={re.escape(cid)} .*reason=not_allowed .*credential=")


def test_server_without_auth_serves_its_credentials_only(start_server):
    server = start_server({"auth": None, **SECTIONS})
    assert outcome(server, "web-1", "for-web") == 140
    assert outcome(server, "web-1", PASSWORD) == 410
    assert outcome(server, "web-1", "cliser") == 410


def test_answers_that_come_early_are_judged_the_same(start_server):
    server = start_server(SECTIONS)
    with Client(server) as client:
        client.send(b"for-web\nnas-1\n100\n100\n")
        client.expect(ASK_PASSWORD)
        client.expect(ASK_ID)
        client.expect_refusal(422)


def test_who_may_not_have_an_id_does_not_disturb_its_holder(start_server):
    for policy in ("probe", "takeover", "reject"):
        server = start_server({**SECTIONS, "registry": {"duplicate_id": policy}})
        with Client(server).handshake("nas-1", "for-nas") as holder:
            assert outcome(server, "nas-1", "for-web") == 422
            holder.expect_silence(0.2)
            assert server.rows()["nas-1"]["credential"] == "nas"
            # Who may have it is treated by the policy, whatever it comes with.
            if policy == "takeover":
                assert outcome(server, "nas-1", PASSWORD) == 140


def test_refusal_may_be_without_a_word(start_server):
    server = start_server({**SECTIONS, "server": {"explain_refusals": "no"}})
    with Client(server) as client:
        client.authenticate("for-web")
        client.send_line("nas-1")
        client.expect_close()


# --- which one a client came with ---------------------------------------------------------------


def test_record_says_which_credential_a_client_came_with(start_server, folder):
    server = start_server(SECTIONS)
    control = Control(server)
    with control.events() as stream:
        with Client(server).handshake("web-1", "for-web"), Client(server).handshake("x"):
            assert stream.expect("connected", cid="web-1").data["credential"] == "web"
            assert control.client("web-1")["credential"] == "web"
            assert control.client("x")["credential"] == "auth"
            assert re.search(r"^credential  web$", ctl(folder, "show", "web-1"), re.MULTILINE)
            listed = map(json.loads, ctl(folder, "list", "--json").splitlines())
            assert {record["cid"]: record["credential"] for record in listed} == {
                "web-1": "web", "x": "auth"}
        stream.wait("disconnected", cid="web-1")
    assert outcome(server, "nas-1", "old-nas") == 140
    server.wait_log(r" connected .*cid=nas-1 .*credential=nas password=2")
    server.wait_log(r" connected .*cid=web-1 .*credential=web password=1")

    assert logins(control, "nas", 2) == 1
    assert logins(control, "nas", 1) == 0
    last = logins(control, "nas", 2, "cliser_credential_last_login_timestamp_seconds")
    assert time.time() - 60 < last <= time.time()
    assert outcome(server, "web-1", "for-nas") == 422
    text = control.request("GET", "/metrics").body.decode()
    assert re.search(r'^cliser_refusals_total{code="422"} 1$', text, re.MULTILINE)


def test_record_keeps_its_credential_over_a_restart(start_server, folder):
    server = start_server(SECTIONS)
    for cid, password in (("web-1", "for-web"), ("nas-1", "old-nas"), ("x", PASSWORD)):
        assert outcome(server, cid, password) == 140
    server.kill()
    # Even if there is no such credential any more.
    server = start_server({"credential nas": NAS}, folder=folder)
    control = Control(server)
    wanted = {"web-1": "web", "nas-1": "nas", "x": "auth"}
    assert {cid: row["credential"] for cid, row in server.rows().items()} == wanted
    assert {cid: control.client(cid)["credential"] for cid in wanted} == wanted
    assert outcome(server, "web-1", PASSWORD) == 140
    assert server.rows()["web-1"]["credential"] == "auth"


# --- rotation -----------------------------------------------------------------------------------


def test_rotation_under_load_disconnects_nobody(start_server):
    server = start_server({**SECTIONS, "keepalive": {"interval": "100ms"}})
    done = threading.Event()
    wrong = []

    def come_and_go(number):
        """Comes with the old password until it is refused, and with the new one from then on."""
        password = "for-web"
        while not done.is_set():
            code = outcome(server, f"web-{number}", password)
            if code == 410 and password == "for-web":
                password = "new-web"
            elif code not in (140, 421):
                wrong.append(code)

    with Witness(server) as witness, Client(server).handshake("web-old", "for-web") as old:
        threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        server.reload({"credential web": {"password": ["new-web", "for-web"]}})
        assert outcome(server, "web-x", "for-web") == 140
        assert outcome(server, "web-x", "new-web") == 140
        assert logins(Control(server), "web", 2) >= 1 <= logins(Control(server), "web", 1)
        witness.wait_asked(3)
        server.reload({"credential web": {"password": "new-web"}})
        assert outcome(server, "web-x", "for-web") == 410
        assert outcome(server, "web-x", "new-web") == 140
        witness.wait_asked(3)
        done.set()
        for thread in threads:
            thread.join()
        witness.check(max_gap=1.0)
        old.answer(time.monotonic() + 0.3)
        assert server.rows()["web-old"]["cstatus"] == 1
    assert wrong == []


def test_reload_that_takes_a_credential_away_lets_who_is_connected_stay(start_server):
    server = start_server({**SECTIONS, "keepalive": {"interval": "100ms"}})
    with Client(server).handshake("web-1", "for-web") as client, Client(server) as between, \
            Client(server) as before:
        between.authenticate("for-web")
        before.expect(ASK_PASSWORD)
        server.reload({"credential web": None})
        between.send_line("web-2")
        between.expect_refusal(422)
        before.send_line("for-web")
        before.expect_refusal(410)
        assert len(client.answer(time.monotonic() + 10, rounds=3)) == 3
    assert outcome(server, "web-1", "for-web") == 410


@pytest.mark.parametrize("bad", [
    {"credential web": {"ids": "[a"}}, {"credential web": {"password": "secret"}},
    {"credential a b": {"password": "x", "ids": "*"}}, {"credential web": {"ids": None}},
    {"credential web": {"password_file": "open"}}, {"credential web": {"password_file": "gone"}},
])
def test_reload_with_an_error_keeps_the_old_credentials(start_server, folder, bad):
    write_secret(folder / "open", "open\n", 0o644)
    server = start_server(SECTIONS)
    with Client(server).handshake("web-1", "for-web") as client:
        server.reload(bad, event="reload_failed")
        client.expect_silence(0.1)
        assert outcome(server, "web-2", "for-web") == 140
        assert outcome(server, "nas-1", "for-web") == 422
        assert outcome(server, "web-2", "open") == 410


# --- the configuration --------------------------------------------------------------------------


def test_sections_with_everything_in_order_are_taken(check, folder):
    write_secret(folder / "pw", "from a file\n")
    check("[credential web]\npassword = a\npassword_file = pw\nids = web-*,\n  db-[0-9] ; or so\n"
          "ids = x\n[credential 0123456789.b_c:d@e-f-0123456789a]\npassword = b\nids = *\n"
          "[auth]\npassword = c\n", expect=0)


def test_every_mistake_is_found_with_its_line(check, folder):
    write_secret(folder / "same", "uno\n")
    lines = [
        "[auth]",                                     # 1
        "password = uno",
        "[credential web]",
        "password = due",
        "password = uno",                             # 5: auth's
        "ids = web-*, [a",                            # 6
        "ids = nas/1",                                # 7
        "[credential web]",                           # 8: twice
        "password = x",
        "ids = *",                                    # 10
        "[credential db]",
        "password = due",                             # 12: web's
        "password_file = same",                       # 13: auth's
        "ids = db-*",
        "user = x",                                   # 15
        "[credential auth]",                          # 16
        "password = y",
        "ids = *",
        "[credential]",                               # 19
        "password = z",
        "ids = *",
        "[credential 012345678901234567890123456789012]",  # 22: 33 bytes
        "password = w",
        "ids = *",
        "[credential two words]",                     # 25
        "password = " + "v" * 129,                    # 26
        "ids = *",
        "[credential nothing]",
        "password = u",                               # 28 has no ids
        "[credential again]",                         # 30 has no password
        "ids = *",
        "[credential-web]",                           # 32
    ]
    errors = check("\n".join(lines) + "\n")
    wanted = {
        5: "[auth]", 6: '"[a" has a [ without a ]', 7: "nas", 8: "line 3", 12: "[credential web]",
        13: "[auth]", 15: "password, password_file, ids", 16: "auth", 19: "needs a name", 22: "32",
        25: "A-Z a-z 0-9 . _ : @ -", 26: "129 bytes", 28: "ids = ", 30: "password = ",
        32: "credential NAME",
    }
    assert set(errors) == set(wanted), errors
    for line, words in wanted.items():
        assert words in errors[line], (line, errors[line])
    for secret in ("uno", "due", "vvv"):
        assert not any(secret in text for text in errors.values()), "a password in an error"


def test_section_without_a_password_is_never_one_without_auth(check):
    assert check("[credential web]\nids = *\n") == {
        1: "this section has no password; it needs password = … or password_file = …"}
    assert 1 in check("[server]\n")
    assert set(check("[credential web]\nids = *\npassword =\n")) == {3}
    assert set(check("[credential web]\nids =\npassword = x\n")) == {2}


def test_patterns_that_would_hold_the_server_up_are_refused(check):
    many = "".join(f"ids = a-{number}-*\n" for number in range(2000))
    assert list(check(f"[credential web]\npassword = x\n{many}").values())[0].startswith("ids: ")
    plain = "".join(f"ids = a-{number}\n" for number in range(20000))
    check(f"[credential web]\npassword = x\n{plain}", expect=0)


@pytest.mark.parametrize("listen", ["0.0.0.0:1111", "[::]:1111"])
def test_shipped_password_is_refused_in_a_credential_too(check, listen):
    errors = check(f"[server]\nlisten = {listen}\n[credential web]\npassword = cliser\nids = *\n")
    assert list(errors) == [4]


def test_file_that_shows_a_password_to_everybody_is_warned_of(start_server, folder):
    (folder / "cliser.ini").touch(0o644)
    server = start_server({"auth": {"password": "somebody-s"}})
    warning = server.wait_log(r" warn passwords_shown .*").group()
    assert "chmod o-rwx" in warning and "somebody-s" not in warning
    server.ini.chmod(0o640)
    mark = server.mark_log()
    server.reload()
    assert server.find_log("passwords_shown", start=mark) is None
    server.ini.chmod(0o644)
    mark = server.mark_log()
    server.reload({"auth": {"password": "cliser"}})
    assert server.find_log("passwords_shown", start=mark) is None
    server.reload({"credential web": {"password": "another-s", "ids": "*"}})
    server.wait_log(" warn passwords_shown ", start=mark)


# --- the files ----------------------------------------------------------------------------------


def chown(uid, mode=0o600):
    def make(path):
        path.write_text("good\n")
        os.chown(path, uid, -1)
        path.chmod(mode)
    return make


BAD_FILES = {
    "mode-644": (lambda path: write_secret(path, "good\n", 0o644), "chmod 640 pw"),
    "mode-604": (lambda path: write_secret(path, "good\n", 0o604), "chmod 640 pw"),
    "mode-660": (lambda path: write_secret(path, "good\n", 0o660), "chmod 640 pw"),
    "mode-666": (lambda path: write_secret(path, "good\n", 0o666), "chmod 640 pw"),
    "fifo": (lambda path: os.mkfifo(path, 0o600), "is not a file"),
    "folder": (lambda path: path.mkdir(0o700), "is not a file"),
    "empty": (lambda path: write_secret(path, ""), "empty"),
    "first-line-empty": (lambda path: write_secret(path, "\ngood\n"), "empty"),
    "nul": (lambda path: write_secret(path, b"go\0od\n"), "NUL"),
    "missing": (lambda path: None, "cannot be opened"),
    "a-strangers": (chown(4711), "chown root pw"),
}
KEYS = {
    "auth": "[auth]\npassword_file = pw\n",
    "credential": "[credential x]\nids = *\npassword_file = pw\n",
    "token": "[auth]\npassword = x\n[control]\nhttp = 127.0.0.1:0\ntoken_file = pw\n",
}


@needs_root
@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("where", KEYS)
def test_secret_file_that_is_not_one_is_refused_with_the_mend(bin_dir, folder, kind, where):
    make, words = BAD_FILES[kind]
    make(folder / "pw")
    for arguments in (["-t", "test.ini"], ["test.ini"]):
        result = run(*arguments, folder=folder, ini=KEYS[where])
        assert result.returncode == 2, result.stdout + result.stderr
        line = KEYS[where][:KEYS[where].index("= pw")].count("\n") + 1
        assert result.stderr.startswith(f"cliserd: test.ini:{line}: "), result.stderr
        assert words in result.stderr and "good" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


@needs_root
@pytest.mark.parametrize("owner,mode", [(0, 0o640), (0, 0o400), (65534, 0o400), (65534, 0o600)])
def test_secret_file_of_root_or_of_the_user_that_will_run_is_taken(start_server, folder, owner,
                                                                   mode):
    folder.chmod(0o777)
    chown(owner, mode)(folder / "pw")
    server = start_server({"server": {"user": "nobody"},
                           "auth": {"password": None, "password_file": "pw"}})
    assert outcome(server, "web-1", "good") == 140
    # From then on only that user's rights count.
    mark = server.mark_log()
    server.signal(signal.SIGHUP)
    server.wait_log(r" reloaded " if owner else r" reload_failed ", start=mark)


@needs_root
@pytest.mark.parametrize("kind", ["mode-644", "mode-660", "a-strangers", "fifo"])
def test_clients_refuse_such_files_too(bin_dir, folder, kind):
    make, words = BAD_FILES[kind]
    make(folder / "pw")
    for command in (["cliser-agent", "--server", "127.0.0.1:1", "--id", "a", "--once",
                     "--password-file", "pw"],
                    ["cliserctl", "--url", "http://127.0.0.1:1", "--token-file", "pw", "status"]):
        result = subprocess.run([BIN / command[0], *command[1:]], cwd=folder, timeout=10,
                                capture_output=True, text=True)
        assert result.returncode == 2, result.stderr
        assert words in result.stderr and "good" not in result.stderr


@needs_root
def test_file_that_was_opened_up_is_refused_at_a_reload_and_the_old_password_holds(start_server,
                                                                                    folder):
    write_secret(folder / "pw", "old\n")
    server = start_server({"auth": {"password": None, "password_file": "pw"}})
    write_secret(folder / "pw", "new\n", 0o644)
    mark = server.mark_log()
    server.signal(signal.SIGHUP)
    assert "chmod 640 pw" in server.wait_log(r" reload_failed .*", start=mark).group()
    assert (outcome(server, "a", "old"), outcome(server, "a", "new")) == (140, 410)


# --- what stays in memory -----------------------------------------------------------------------


def memory_of(pid):
    """Everything that the process has written, or could have."""
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(text, 16) for text in span.split("-"))
            if "w" not in rights or "[vvar" in line:
                continue
            memory.seek(start)
            parts.append(memory.read(end - start))
    return b"\n".join(parts)


@needs_root
def test_no_secret_stays_in_memory(start_server, folder):
    if sanitized():
        pytest.skip("a sanitizer keeps what was freed")
    secrets = {name: f"{name}-Xyzzy-{os.urandom(6).hex()}" for name in
               ("inline", "filed", "second", "credential", "token", "newer", "broken", "typed")}
    write_secret(folder / "filed", secrets["filed"] + "\n" + secrets["second"] + "\n")
    write_secret(folder / "token", secrets["token"] + "\n")
    write_secret(folder / "credential", secrets["credential"] + "\n")
    server = start_server({
        "auth": {"password": secrets["inline"], "password_file": "filed"},
        "credential web": {"password_file": "credential", "ids": "web-*"},
        "control": {"http": "127.0.0.1:0", "token_file": "token"}})

    def check(when):
        with Client(server) as client:
            client.expect(ASK_PASSWORD)  # so what was logged before is done with
        memory = memory_of(server.pid)
        assert b"127.0.0.1" in memory, "this does not read the memory"
        found = [name for name, secret in secrets.items() if secret.encode() in memory]
        assert found == [], f"in memory {when}: {found}"

    check("after the start")
    # What a client says goes too: a line by itself, and in pieces that have to be kept.
    assert outcome(server, "web-1", secrets["credential"]) == 140
    assert outcome(server, "web-1", secrets["typed"]) == 410
    with Client(server) as client:
        client.send(secrets["inline"].encode() + b"\n")
        client.expect(ASK_PASSWORD)
        client.expect(ASK_ID)
        check("after a password")
    server.reload({"auth": {"password": [secrets["inline"], secrets["newer"]]}})
    check("after a reload")
    server.reload({"auth": {"password": [secrets["inline"], secrets["broken"]]},
                   "keepalive": {"interval": "nonsense"}}, event="reload_failed")
    check("after a reload that failed")
    server.reload({"auth": {"password": [secrets["inline"], secrets["broken"] + "x" * 150]}},
                  event="reload_failed")
    check("after a reload with a password that is too long")
