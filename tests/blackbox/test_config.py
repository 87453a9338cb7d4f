"""cliser.ini and the command line: what is taken, and every mistake with its file and line."""

import os
import pathlib
import re
import signal
import socket

import pytest

from harness import (ROOT, Client, in_namespace_of, free_port, ini_text, merged,
                     needs_network, needs_root, run, write_secret)

PASSWORD_LINES = "[auth]\npassword = secret\n"


@pytest.fixture
def check(bin_dir, folder):
    """Runs cliserd -t on a text and returns the sorted error lines [(line number, text)]."""

    def errors_of(text, expect=2):
        result = run("-t", "test.ini", folder=folder, ini=text)
        assert result.returncode == expect, result.stdout + result.stderr
        if expect == 0:
            assert result.stdout == "test.ini: ok\n"
            assert result.stderr == ""
            return []
        assert result.stdout == ""
        found = []
        for line in result.stderr.splitlines():
            match = re.fullmatch(r"cliserd: test\.ini:(?:(\d+):)? ?(.*)", line)
            assert match, f"not an error in the agreed form: {line!r}"
            found.append((int(match.group(1) or 0), match.group(2)))
        assert found, "exit 2 without a word"
        numbers = [number for number, _ in found if number]
        assert numbers == sorted(numbers), "errors come in the order of the lines"
        return found

    return errors_of


def only_error(errors, number, *words):
    assert [line for line, _ in errors] == [number], errors
    for word in words:
        assert word in errors[0][1], errors


# --- what is valid ------------------------------------------------------------------------------


def test_shipped_file_is_valid(bin_dir, folder):
    result = run("-t", ROOT / "cliser.ini", folder=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{ROOT}/cliser.ini: ok\n", "")
    assert list(folder.iterdir()) == [], "-t leaves nothing behind"


@needs_network
@pytest.mark.parametrize("shipped", [True, False], ids=["shipped", "only-a-password"])
def test_defaults_are_the_documented_ones(start_server, folder, shipped):
    # In a network of its own port 1111 is free.
    text = (ROOT / "cliser.ini").read_text() if shipped else PASSWORD_LINES
    server = start_server(ini=text, wrap=[
        "unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"])
    assert server.addresses == ["127.0.0.1:1111"]
    password = "cliser" if shipped else "secret"
    with in_namespace_of(server.pid, "net", lambda: Client(server)) as client:
        client.handshake("web-1", password)
        assert server.rows()["web-1"]["cstatus"] == 1
    server.wait_log(r" keepalive .*dead_client_max=40s(\s|$)")


VALID = {
    "bom": b"\xef\xbb\xbf[auth]\npassword = secret\n",
    "crlf": b"[auth]\r\npassword = secret\r\n[keepalive]\r\ninterval = 5s\r\n",
    "bom-and-crlf": b"\xef\xbb\xbf[auth]\r\npassword = secret\r\n",
    "no-newline-at-the-end": b"[auth]\npassword = secret",
    "comments": b"; one\n# two\n[auth] ; three\npassword = secret\n[keepalive]\n"
                b"interval = 5s ; inline\n\n   \n",
    "section-twice": b"[auth]\npassword = a\n[log]\nlevel = warn\n[auth]\npassword = b\n",
    "spaces": b"  [auth]\npassword=secret\n[keepalive]\ninterval   =   5s   \n",
    "list-by-comma": b"[server]\nlisten = 127.0.0.1:0, [::1]:0,unix:w.sock\n" +
                     PASSWORD_LINES.encode(),
    "list-by-repetition": b"[server]\nlisten = 127.0.0.1:0\nlisten = [::1]:0\n" +
                          PASSWORD_LINES.encode(),
    "list-by-indentation": b"[server]\nlisten = 127.0.0.1:0\n    [::1]:0\n\tunix:w.sock\n" +
                           PASSWORD_LINES.encode(),
    "list-by-indentation-with-commas": b"[server]\nlisten = 127.0.0.1:0,\n    [::1]:0\n" +
                                       PASSWORD_LINES.encode(),
    "password-by-repetition": b"[auth]\npassword = a\npassword = b\npassword = c\n",
    "password-by-indentation": b"[auth]\npassword = a\n  b\n",
    "password-with-comma": b"[auth]\npassword = a,b\n",
    "loopback-by-another-name": b"[server]\nlisten = 127.9.9.9:1\n[auth]\npassword = cliser\n",
    "beyond-loopback-with-another-password": b"[server]\nlisten = 0.0.0.0:1, [::]:1\n" +
                                             PASSWORD_LINES.encode(),
    "every-key": b"""[server]
listen = 127.0.0.1:1111
max_clients = 1000000
backlog = 4096
reuse_port = no
drain = 30s
explain_refusals = yes
[auth]
password = secret
[keepalive]
interval = 10s
misses = 3
require_reply = auto
[limits]
handshake_timeout = 10s
max_pending = 16384
max_tls_pending = 2048
max_per_source = 0
auth_failures = 10
auth_penalty = 60s
[registry]
store = sqlite
path = cliser.db
sync = normal
duplicate_id = probe
forget_after = never
[log]
level = info
target = stderr
format = text
""",
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID.keys())
def test_good_file_is_taken(check, text):
    check(text, expect=0)


GOOD_VALUES = [
    ("server", "max_clients", ["1", "1000000"]),
    ("server", "backlog", ["1", "128"]),
    ("server", "reuse_port", ["yes", "no"]),
    ("server", "drain", ["1ms", "0s", "5m"]),
    ("server", "explain_refusals", ["yes", "no"]),
    ("keepalive", "interval", ["1ms", "250ms", "10s", "5m", "2h", "1d"]),
    ("keepalive", "misses", ["1", "3", "255"]),
    ("keepalive", "require_reply", ["auto", "yes", "no"]),
    ("limits", "handshake_timeout", ["100ms", "10s"]),
    ("limits", "max_pending", ["1", "16384"]),
    ("limits", "max_tls_pending", ["1", "2048"]),
    ("limits", "max_per_source", ["0", "1", "65535"]),
    ("limits", "auth_failures", ["0", "1", "1000000"]),
    ("limits", "auth_penalty", ["1ms", "60s", "1d"]),
    ("registry", "store", ["sqlite", "memory"]),
    ("registry", "sync", ["normal", "full"]),
    ("registry", "duplicate_id", ["probe", "takeover", "reject"]),
    ("registry", "forget_after", ["never", "30d", "1s"]),
    ("log", "level", ["error", "warn", "info", "debug"]),
    ("log", "target", ["stderr", "syslog"]),
    ("log", "format", ["text", "json"]),
]


@pytest.mark.parametrize("section,key,value", [
    (section, key, value) for section, key, values in GOOD_VALUES for value in values])
def test_good_value_is_taken(check, section, key, value):
    check(f"{PASSWORD_LINES}[{section}]\n{key} = {value}\n", expect=0)


# --- what is an error ---------------------------------------------------------------------------

BAD_VALUES = [
    ("server", "max_clients", ["0", "-1", "many", "1.5", "10x", "99999999999999999999", "0x10",
                               ""]),
    ("server", "backlog", ["0", "-5", "none", ""]),
    ("server", "reuse_port", ["maybe", "2", ""]),
    ("server", "drain", ["30", "-1s", "soon", ""]),
    ("server", "explain_refusals", ["perhaps", ""]),
    ("keepalive", "interval", ["0s", "0ms", "10", "1.5s", "-10s", "10sec", "s", "10 s x", "",
                               "99999999999999999999d", "18446744073709551615d", "never"]),
    ("keepalive", "misses", ["0", "256", "-1", "three", ""]),
    ("keepalive", "require_reply", ["true", "sometimes", ""]),
    ("limits", "handshake_timeout", ["0s", "10", "never", ""]),
    ("limits", "max_pending", ["0", "-1", "all", ""]),
    ("limits", "max_tls_pending", ["0", "-1", "all", ""]),
    ("limits", "max_per_source", ["-1", "none", "1.5", ""]),
    ("limits", "auth_failures", ["-1", "1000001", "never", ""]),
    ("limits", "auth_penalty", ["0ms", "60", "2d", "never", ""]),
    ("registry", "store", ["mysql", "SQLite3", ""]),
    ("registry", "path", [""]),
    ("registry", "sync", ["off", "2", ""]),
    ("registry", "duplicate_id", ["ask", ""]),
    ("registry", "forget_after", ["30", "later", "0s", ""]),
    ("log", "level", ["loud", "3", ""]),
    ("log", "target", ["stdout", ""]),
    ("log", "format", ["xml", ""]),
    ("auth", "password_file", [""]),
]


@pytest.mark.parametrize("section,key,value", [
    (section, key, value) for section, key, values in BAD_VALUES for value in values])
def test_bad_value_is_an_error_at_its_line(check, section, key, value):
    errors = check(f"{PASSWORD_LINES}\n; a comment\n[{section}]\n{key} = {value}\n")
    only_error(errors, 6, key)


# What would be right is said as well.
@pytest.mark.parametrize("section,key,value,words", [
    ("registry", "store", "mysql", ["sqlite", "memory"]),
    ("registry", "sync", "off", ["normal", "full"]),
    ("registry", "duplicate_id", "ask", ["probe", "takeover", "reject"]),
    ("keepalive", "require_reply", "x", ["auto", "yes", "no"]),
    ("keepalive", "misses", "256", ["255"]),
    ("log", "level", "loud", ["error", "warn", "info", "debug"]),
    ("log", "format", "xml", ["text", "json"]),
    ("server", "explain_refusals", "perhaps", ["yes", "no"]),
    ("keepalive", "interval", "10", ["10", "s"]),
])
def test_error_says_what_would_be_right(check, section, key, value, words):
    errors = check(f"{PASSWORD_LINES}[{section}]\n{key} = {value}\n")
    only_error(errors, 4, *words)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.0.0.1:", ":1111", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:port",
    "127.0.0.1:11x", "1.2.3.4.5:1", "300.0.0.1:1", "[::1]", "[::1:1111", "::1:1111", "[::1]1111",
    "unix:", "unix:" + "x" * 120, "tcp:127.0.0.1:1", "1111", "127.0.0.1 1111",
    "127.0.0.1:1111,,127.0.0.1:1112"], ids=lambda address: address[:30])
def test_bad_listen_address_is_an_error_at_its_line(check, address):
    errors = check(f"{PASSWORD_LINES}[server]\nlisten = {address}\n")
    only_error(errors, 4, "listen")


def test_bad_address_in_a_list_is_an_error_at_its_own_line(check):
    errors = check(f"{PASSWORD_LINES}[server]\nlisten = 127.0.0.1:1\n    nonsense\n"
                   "listen = [::1]:2\nlisten = more nonsense\n")
    assert [number for number, _ in errors] == [5, 7]
    assert "nonsense" in errors[0][1] and "more nonsense" in errors[1][1]


def test_unknown_key_is_an_error_with_its_name(check):
    only_error(check(f"{PASSWORD_LINES}[keepalive]\nintervall = 10s\n"), 4, "intervall")
    only_error(check(f"{PASSWORD_LINES}[server]\ninterval = 10s\n"), 4, "interval")
    only_error(check(f"{PASSWORD_LINES}pasword = x\n"), 3, "pasword")


def test_unknown_section_is_an_error_with_its_name(check):
    errors = check(f"{PASSWORD_LINES}[sever]\nlisten = 127.0.0.1:1\n")
    assert len(errors) == 1 and errors[0][0] in (3, 4) and "sever" in errors[0][1], errors
    only_error(check(f"{PASSWORD_LINES}[empty]\n[log]\nlevel = info\n"), 3, "empty")


def test_second_value_for_a_key_that_takes_one_is_an_error(check):
    text = f"{PASSWORD_LINES}[keepalive]\ninterval = 10s\nmisses = 3\ninterval = 20s\n"
    only_error(check(text), 6, "interval")
    only_error(check(f"{PASSWORD_LINES}[keepalive]\ninterval = 10s\n[log]\nlevel = info\n"
                     "[keepalive]\ninterval = 10s\n"), 8, "interval")


def test_indented_line_after_a_key_that_takes_one_value_is_an_error(check):
    only_error(check(f"{PASSWORD_LINES}[keepalive]\ninterval = 10s\n    20s\n"), 5, "interval")
    # The classic: a key that somebody indented under its section's last one.
    only_error(check(f"{PASSWORD_LINES}[keepalive]\ninterval = 10s\n  misses = 3\n"), 5)


def test_line_that_is_no_setting_is_an_error(check):
    only_error(check(f"{PASSWORD_LINES}what is this\n"), 3)
    only_error(check(f"{PASSWORD_LINES}[log\nlevel = info\n"[:len(PASSWORD_LINES) + 5]), 3)
    only_error(check(f"{PASSWORD_LINES}= 3\n"), 3)


def test_key_before_any_section_is_an_error(check):
    only_error(check(f"level = info\n{PASSWORD_LINES}"), 1, "level")


@pytest.mark.parametrize("line", [
    "; " + "x" * 220, "password = " + "p" * 220, "path = " + "x" * 250,
    # Cut where inih cuts, the tail would be a setting of its own.
    "; " + "x" * 197 + "max_clients = 7", "level = info ;" + " " * 250],
    ids=["comment", "value", "unknown-key", "tail-is-a-setting", "blanks"])
def test_line_longer_than_inih_takes_is_one_error(check, line):
    text = "[auth]\npassword = secret\n[log]\n" + line + "\n[keepalive]\ninterval = 10s\n"
    only_error(check(text), 4, f"{len(line)} bytes")


def test_line_of_just_the_right_length_is_taken(check):
    check(f"{PASSWORD_LINES}; " + "x" * 170 + "\n[log]\nlevel = info\n", expect=0)


@pytest.mark.parametrize("line", [b"level = in\0fo", b"; comment \0 with nul", b"\0", b"[lo\0g]"])
def test_nul_byte_is_an_error_at_its_line(check, line):
    errors = check(PASSWORD_LINES.encode() + b"[log]\n" + line + b"\n")
    assert (4 in [number for number, _ in errors]) and len(errors) == 1, errors


def test_all_errors_are_reported_at_once(check):
    text = "\n".join([
        "stray = 1",                      # 1
        "[server]",
        "listen = nonsense",              # 3
        "max_clients = 0",                # 4
        "colour = blue",                  # 5
        "[keepalive]",
        "interval = 10",                  # 7
        "misses = 3",
        "misses = 4",                     # 9
        "require_reply = possibly",       # 10
        "[limits]",
        "handshake_timeout = -1s",        # 12
        "; " + "x" * 250,                 # 13
        "[registry]",
        "store = mysql",                  # 15
        "[log]",
        "level = loud",                   # 17
        "[auth]",
        "password_file = not-there",      # 19
        "password = with ; semicolon",    # 20
        ""])
    errors = check(text)
    numbers = [number for number, _ in errors if number]
    assert numbers == [1, 3, 4, 5, 7, 9, 10, 12, 13, 15, 17, 19, 20], errors


# --- passwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[auth]\n", "[log]\nlevel = info\n", "; only a comment\n"])
def test_missing_password_is_an_error(check, text):
    errors = check(text)
    assert len(errors) == 1 and "password" in errors[0][1], errors


@pytest.mark.parametrize("password", ["has ; inside", "tail ;", "a\t;b", "x ;"])
def test_password_that_would_be_cut_is_an_error(check, password):
    errors = check(f"[auth]\npassword = {password}\n")
    only_error(errors, 2)
    assert password not in errors[0][1], "a secret is never shown"


def test_password_of_129_bytes_is_an_error(check):
    errors = check(f"[auth]\npassword = {'p' * 129}\n")
    only_error(errors, 2, "128")
    assert "p" * 20 not in errors[0][1], "a secret is never shown"
    check(f"[auth]\npassword = {'p' * 128}\n", expect=0)


def test_password_that_no_client_may_send_is_an_error(check):
    errors = check("[auth]\npassword =\n")
    assert 2 in [number for number, _ in errors], errors
    only_error(check(b"[auth]\npassword = good\npassword = a\rb\n"), 3)


@pytest.mark.parametrize("make", [
    pytest.param(lambda path: None, id="missing"),
    pytest.param(lambda path: write_secret(path, b""), id="empty"),
    pytest.param(lambda path: write_secret(path, b"\nsecond line\n"), id="first-line-empty"),
    pytest.param(lambda path: write_secret(path, b"p" * 129 + b"\n"), id="too-long"),
    pytest.param(lambda path: write_secret(path, b"p" * 1000000), id="a-megabyte"),
    pytest.param(lambda path: write_secret(path, b"nul\0inside\n"), id="nul"),
    pytest.param(lambda path: write_secret(path, b"cr\rinside\n"), id="cr"),
    pytest.param(lambda path: path.mkdir(), id="directory"),
    pytest.param(lambda path: os.mkfifo(path), id="fifo"),
    pytest.param(lambda path: path.symlink_to("nowhere"), id="dangling"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="dev-zero"),
])
def test_bad_password_file_is_an_error_at_its_line(check, folder, make):
    make(folder / "pw")
    only_error(check("[auth]\npassword_file = pw\n"), 2, "p")


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\n", b"p" * 128 + b"\n",
                                     b"with ; semicolon and # too\n"],
                         ids=["no-newline", "lf", "crlf", "128-bytes", "semicolon"])
def test_good_password_file_is_taken(check, folder, content):
    write_secret(folder / "pw", content)
    check("[auth]\npassword_file = pw\n", expect=0)


@pytest.mark.parametrize("listen", ["0.0.0.0:1111", "[::]:1111", "192.0.2.1:1111",
                                    "127.0.0.1:1111, 0.0.0.0:1112"])
@pytest.mark.parametrize("auth", ["password = cliser", "password = other\npassword = cliser",
                                  "password_file = pw"])
def test_shipped_password_is_refused_beyond_loopback(bin_dir, folder, listen, auth):
    write_secret(folder / "pw", "cliser\n")
    text = f"[server]\nlisten = {listen}\n[auth]\n{auth}\n"
    for arguments in (["-t", "test.ini"], ["test.ini"]):
        result = run(*arguments, folder=folder, ini=text)
        assert result.returncode == 2, result.stdout + result.stderr
        assert result.stderr.startswith("cliserd: test.ini:") and "password" in result.stderr


# --- the file itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("option", [[], ["-c"], ["-t"], ["-t", "-c"]])
def test_missing_file_is_an_error_with_its_name(bin_dir, folder, option):
    result = run(*option, "nowhere.ini", folder=folder)
    assert result.returncode == 2
    assert result.stderr.startswith("cliserd: nowhere.ini")


def test_default_file_is_cliser_ini_of_the_working_directory(bin_dir, folder):
    result = run("-t", folder=folder)
    assert result.returncode == 2
    assert result.stderr.startswith("cliserd: cliser.ini")
    (folder / "cliser.ini").write_text(PASSWORD_LINES)
    result = run("-t", folder=folder)
    assert (result.returncode, result.stdout) == (0, "cliser.ini: ok\n")


@pytest.mark.parametrize("make", [
    pytest.param(lambda path: path.mkdir(), id="directory"),
    pytest.param(lambda path: os.mkfifo(path), id="fifo"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="dev-zero"),
    pytest.param(lambda path: path.symlink_to(path.name), id="loop"),
])
@pytest.mark.parametrize("option", [["-t"], []], ids=["check", "start"])
def test_thing_that_is_no_file_is_an_error_and_does_not_hang(bin_dir, folder, make, option):
    make(folder / "odd.ini")
    result = run(*option, "odd.ini", folder=folder, seconds=5)
    assert result.returncode == 2
    assert result.stderr.startswith("cliserd: odd.ini")


def test_errors_are_the_same_when_starting(bin_dir, folder):
    text = "[auth]\n[keepalive]\ninterval = 10\ncolour = blue\n"
    checked = run("-t", "test.ini", folder=folder, ini=text)
    started = run("test.ini", folder=folder, ini=text)
    assert (checked.returncode, started.returncode) == (2, 2)
    assert checked.stderr == started.stderr
    assert not list(folder.glob("cliser.db*"))


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_goes_to_stdout(bin_dir, folder, option):
    result = run(option, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert "cliserd" in result.stdout.splitlines()[0]
    for word in ("-c", "-t", "--help", "--version", "FILE"):
        assert word in result.stdout


def test_version_goes_to_stdout(bin_dir, folder):
    result = run("--version", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"cliserd \d+\.\d+\S*\n", result.stdout)


@pytest.mark.parametrize("arguments", [["--colour"], ["-Z"], ["-c"], ["one.ini", "two.ini"]])
def test_wrong_usage_is_exit_2(bin_dir, folder, arguments):
    result = run(*arguments, folder=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("cliserd: ")


@pytest.mark.parametrize("arguments", [["test.ini"], ["-c", "test.ini"], ["--config", "test.ini"],
                                       ["--config=test.ini"]])
def test_file_may_be_given_either_way(bin_dir, folder, arguments):
    result = run("-t", *arguments, folder=folder, ini=PASSWORD_LINES)
    assert (result.returncode, result.stdout) == (0, "test.ini: ok\n"), result.stderr


# --- addresses in use ---------------------------------------------------------------------------


def test_port_in_use_is_exit_1_with_the_address(bin_dir, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("test.ini", folder=folder,
                     ini=ini_text(merged({"server": {"listen": f"127.0.0.1:{port}"}})))
    assert result.returncode == 1
    assert re.search(rf"^cliserd: .*127\.0\.0\.1:{port}", result.stderr, re.M), result.stderr
    assert "in use" in result.stderr
    assert "ready:" not in result.stderr


def test_address_of_another_machine_is_exit_1_with_the_address(bin_dir, folder):
    result = run("test.ini", folder=folder,
                 ini=ini_text(merged({"server": {"listen": "192.0.2.1:1111"}})))
    assert result.returncode == 1
    assert re.search(r"^cliserd: .*192\.0\.2\.1:1111", result.stderr, re.M), result.stderr


def test_reuse_port_lets_two_servers_share_a_port(start_server):
    port = free_port()
    config = {"server": {"listen": f"127.0.0.1:{port}", "reuse_port": "yes"}}
    first = start_server(config)
    second = start_server(config)
    assert first.port == second.port == port
    with Client(first) as client:
        client.handshake("web-1")


def test_port_of_a_server_that_stopped_is_free_at_once(start_server):
    config = {"server": {"listen": f"127.0.0.1:{free_port()}"}}
    server = start_server(config)
    clients = [Client(server).handshake(f"web-{n}") for n in range(5)]
    assert server.stop() == 0  # the server closes first: its side is in TIME_WAIT
    server = start_server(config, folder=server.folder)
    for client in clients:
        client.close()
    Client(server).handshake("web-1").close()


def test_stale_unix_socket_is_replaced_and_a_live_one_is_not(start_server, folder):
    config = {"server": {"listen": f"unix:{folder}/wire.sock"}}
    server = start_server(config)
    server.kill()
    assert (folder / "wire.sock").exists()
    server = start_server(config, folder=server.folder)
    with Client(folder / "wire.sock") as client:
        client.handshake("web-1")
        (folder / "other").mkdir()
        result = run("test.ini", folder=folder / "other", ini=ini_text(merged(config)))
        assert result.returncode == 1
        assert "wire.sock" in result.stderr
        client.expect_silence(0.05)
    with Client(folder / "wire.sock") as client:
        client.handshake("web-2")
    assert server.stop() == 0
    assert not (folder / "wire.sock").exists(), "the socket goes with the server"


def test_file_in_the_place_of_a_unix_socket_is_left_alone(bin_dir, folder):
    (folder / "wire.sock").write_text("a letter")
    result = run("test.ini", folder=folder,
                 ini=ini_text(merged({"server": {"listen": f"unix:{folder}/wire.sock"}})))
    assert result.returncode == 1
    assert "wire.sock" in result.stderr
    assert (folder / "wire.sock").read_text() == "a letter"


# --- another user -------------------------------------------------------------------------------


@needs_root
def test_user_gets_no_privileges_back(start_server, folder):
    folder.chmod(0o777)
    server = start_server({"server": {"user": "nobody", "listen": "127.0.0.1:0"}})
    status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    uid = re.search(r"Uid:\s+(.*)", status).group(1).split()
    gid = re.search(r"Gid:\s+(.*)", status).group(1).split()
    groups = re.search(r"Groups:(.*)", status).group(1).split()
    assert set(uid) == {"65534"} and set(gid) == {"65534"}
    assert set(groups) <= {"65534"}
    assert int(re.search(r"CapEff:\s+(\w+)", status).group(1), 16) == 0
    with Client(server) as client:
        client.handshake("web-1")
        assert server.rows()["web-1"]["cstatus"] == 1
    assert server.db.stat().st_uid == 65534


@needs_root
def test_user_may_still_read_its_password_file_at_reload_or_says_so(start_server, folder):
    folder.chmod(0o777)
    write_secret(folder / "pw", "secret\n")
    (folder / "pw").chmod(0o600)
    server = start_server({"server": {"user": "nobody"},
                           "auth": {"password": None, "password_file": "pw"}})
    with Client(server) as client:
        client.handshake("web-1")
        mark = server.mark_log()
        server.signal(signal.SIGHUP)
        server.wait_log(r"\b(reloaded|reload_failed)\b", start=mark)
        client.expect_silence(0.1)
    with Client(server) as client:
        client.handshake("web-2")


def test_unknown_user_is_an_error_with_its_name(bin_dir, folder):
    result = run("test.ini", folder=folder,
                 ini=ini_text(merged({"server": {"user": "no-such-user"}})))
    assert result.returncode in (1, 2)
    assert result.stderr.startswith("cliserd: ") and "no-such-user" in result.stderr
    assert "ready:" not in result.stderr
