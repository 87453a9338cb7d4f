"""Who may ask: the token, Host and Origin over TCP, the mode of the unix socket; and what is wrong
with [control] in a configuration. Whatever is refused changes nothing."""

import re
import socket
import stat
import subprocess

import pytest

from control import TOKEN, Control, http_config
from harness import Client, ini_text, merged, needs_root, run, wait_until, write_secret

PATHS = ["/v1/status", "/v1/clients", "/v1/clients/web-1", "/v1/shutdown", "/v1/shutdown/targets",
         "/v1/events", "/metrics"]
CHANGES = [("DELETE", "/v1/clients/gone", None), ("POST", "/v1/clients/web-1/disconnect", b""),
           ("POST", "/v1/clients/web-1/ping", b""), ("POST", "/v1/reload", b""),
           ("DELETE", "/v1/shutdown", None),
           ("POST", "/v1/shutdown", b'{"waves":[["*"]]}'),
           ("POST", "/v1/shutdown", b'{"waves":[["*"]],"dry_run":true}')]
JSON = "Content-Type: application/json"


@pytest.fixture
def site(start_server, folder):
    """
    A server with a port: over TCP, and a client web-1 that is connected and must hear nothing. gone
    was connected once.
    """
    server = start_server(http_config(folder))
    with Client(server).handshake("gone"):
        pass
    wait_until(lambda: not Control(server).client("gone")["cstatus"])
    with Client(server).handshake("web-1") as client:
        yield Control(server, tcp=True)
        client.expect_silence(0.05)
        own = Control(server)
        assert own.client("web-1")["cstatus"] is True and own.client("gone")["cstatus"] is False
        assert own.get("/v1/shutdown") == (200, {"state": "none"})
        assert not server.find_log(r"\b(reloaded|reload_failed|order_\w+)\b")


def ask(control, method, path, headers, body=None):
    """An answer to just these headers, beside those that say how long the body is."""
    with control.raw() as raw:
        raw.ask(f"{method} {path}", [*headers, None], body)
        return raw.answer(to_head=method == "HEAD")


def refused_everywhere(control, status, headers, paths=PATHS):
    """Nobody who asks so learns or changes anything."""
    for path in paths:
        answer = ask(control, "GET", path, headers)
        assert answer.status == status, (path, headers, answer.body)
        assert b"web-1" not in answer.body
    for method, path, body in CHANGES:
        answer = ask(control, method, path, [JSON, *headers], body)
        assert answer.status == status, (method, path, headers, answer.body)
    return answer


# --- the token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [
    None, "Authorization:", "Authorization: Bearer", "Authorization: Bearer ",
    f"Authorization: {TOKEN}",
    f"Authorization: Basic {TOKEN}", f"Authorization: Bearer{TOKEN}",
    f"Authorization: Bearer {TOKEN}x",
    f"Authorization: Bearer {TOKEN[:-1]}", f"Authorization: Bearer  {TOKEN}",
    f"Authorization: Bearer {TOKEN.upper()}",
    f"Authorization: Bearer x, Bearer {TOKEN}", f"Authorization: Bearer \"{TOKEN}\"",
    "Authorization: Bearer secret",
    f"Authorization: Bearer {TOKEN}, {TOKEN}", "Authorization: Bearer " + "x" * 5000,
    f"X-Authorization: Bearer {TOKEN}",
    f"Cookie: token={TOKEN}", f"Proxy-Authorization: Bearer {TOKEN}",
    "Authorization: Bearer \xff\xfe"])
def test_whoever_has_not_the_token_gets_401(site, header):
    answer = refused_everywhere(site, 401, [f"Host: {site.host}", *([header] if header else [])])
    assert answer.header("www-authenticate").startswith("Bearer")
    assert "token" in answer.json["error"].lower()
    assert TOKEN not in answer.json["error"]


@pytest.mark.parametrize("headers", [
    [f"Authorization: Bearer {TOKEN}", "Authorization: Bearer wrong"],
    ["Authorization: Bearer wrong", f"Authorization: Bearer {TOKEN}"],
    [f"Authorization: Bearer {TOKEN}"] * 2], ids=["right-wrong", "wrong-right", "twice"])
def test_token_that_is_there_twice_is_400(site, headers):
    refused_everywhere(site, 400, [f"Host: {site.host}", *headers])


@pytest.mark.parametrize("header", ["Authorization: \0", f"Authorization: Bearer wrong\0{TOKEN}",
                                    f"Authorization: Bearer\0 {TOKEN}"])
def test_nul_helps_nobody(site, header):
    refused_everywhere(site, 401, [f"Host: {site.host}", header])


def test_whoever_has_the_token_may_ask(site):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert ask(site, "GET", "/v1/status", [f"Host: {site.host}",
                                               f"authorization: {scheme} {TOKEN}"]).status == 200
    assert site.get("/v1/clients/web-1")[1]["cid"] == "web-1"
    assert site.post("/v1/shutdown", {"waves": [["*"]], "dry_run": True})[1]["count"] == 1
    assert site.metrics()["cliser_ready"] == 1
    with site.events() as stream:
        stream.expect_silence(0)


def test_token_does_not_count_in_the_query(site):
    host = [f"Host: {site.host}"]
    for query in (f"token={TOKEN}", f"access_token={TOKEN}"):
        assert ask(site, "GET", "/v1/status?" + query.replace(" ", "%20"), host).status == 401


def test_health_needs_no_token_and_nothing_else_is_told_without(site):
    host = [f"Host: {site.host}"]
    for path, expected in (("/healthz", {"ok": True}), ("/readyz", {"ready": True})):
        answer = ask(site, "GET", path, host)
        assert (answer.status, answer.json) == (200, expected)
        assert ask(site, "HEAD", path, host).status == 200
    for path in ("/healthz/", "/healthz/../v1/status", "/v1/../healthz", "/%68ealthz/x"):
        assert ask(site, "GET", path, host).status in (401, 404)
    assert ask(site, "HEAD", "/metrics", host).status == 401


def test_no_answer_lets_another_page_read_it(site):
    """Answer.check() looks for CORS headers in every answer; here is what a browser asks first."""
    for headers in ([], [f"Authorization: Bearer {TOKEN}"]):
        for path in ("/v1/status", "/healthz", "/v1/shutdown", "/nothing", "*"):
            answer = ask(site, "OPTIONS", path, [
                f"Host: {site.host}", "Origin: http://evil.example",
                "Access-Control-Request-Method: DELETE",
                "Access-Control-Request-Headers: authorization", *headers])
            assert answer.status in (401, 403, 404, 405)
            answer = ask(site, "GET", path, [f"Host: {site.host}", f"Origin: http://{site.host}",
                                             *headers])
            assert answer.header("x-content-type-options") == "nosniff"


# --- rotation -----------------------------------------------------------------------------------


def test_reload_takes_another_token_at_once_also_on_open_connections(start_server, folder):
    server = start_server(http_config(folder))
    old, new = Control(server, tcp=True), Control(server, tcp=True, token="next")
    with old.raw() as raw, old.events() as stream:
        assert raw.ask("GET /v1/status").answer().status == 200
        assert new.request("GET", "/v1/status").status == 401
        write_secret(folder / "token", "next\n")
        assert old.get("/v1/status")[0] == 200, "not before the reload"
        assert old.post("/v1/reload")[0] == 200
        assert raw.ask("GET /v1/status").answer().status == 401
        assert old.request("GET", "/v1/status").status == 401
        assert new.get("/v1/status")[0] == 200
        with Client(server).handshake("web-1"):
            stream.expect("connected", cid="web-1")
    write_secret(folder / "token", "\n")
    status, answer = new.post("/v1/reload")
    assert status == 409 and "token_file" in answer["error"]
    assert new.get("/v1/status")[0] == 200
    write_secret(folder / "other", "third\nsecond line\n")
    server.reload({"control": {"token_file": "other"}})
    assert Control(server, tcp=True, token="third").get("/v1/status")[0] == 200
    assert new.request("GET", "/v1/status").status == 401


# --- Host and Origin ----------------------------------------------------------------------------

RIGHT = f"Authorization: Bearer {TOKEN}"


def test_own_names_are_taken(site):
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", "LocalHost"):
        assert ask(site, "GET", "/v1/status", [RIGHT,
                                               f"Host: {host}:{site.port}"]).status == 200, host
        assert ask(site, "GET", "/healthz", [f"Host: {host}:{site.port}"]).status == 200, host
        assert ask(site, "GET", "/v1/status", [RIGHT, f"Host: {site.host}",
                                               f"Origin: http://{host}:{site.port}"]).status == 200


FOREIGN = ["evil.example", "evil.example:{port}", "localhost", "127.0.0.1", "[::1]",
           "localhost:{other}", "localhost:",
           "127.0.0.1:{other}", "localhost.evil.example:{port}", "evil.localhost:{port}",
           "127.0.0.2:{port}", "0.0.0.0:{port}",
           "127.0.0.1.evil.example:{port}", "127.0.0.1@evil.example:{port}",
           "user@localhost:{port}", "2130706433:{port}",
           "localhost:{port}:{port}", "localhost:0{port}", "localhost:{port}/",
           "localhost:{port},evil.example", "::1:{port}",
           "http://localhost:{port}", "[::1]:{port}x", "localhost\t:{port}", ".", ":{port}",
           "unix:/x:{port}", "x" * 5000, "evil.example\0localhost:{port}"]


@pytest.mark.parametrize("host", FOREIGN, ids=range(len(FOREIGN)))
def test_foreign_host_is_403(site, host):
    host = host.format(port=site.port, other=site.port + 1)
    refused_everywhere(site, 403, [RIGHT, f"Host: {host}"])
    for path in ("/healthz", "/readyz"):
        assert ask(site, "GET", path, [f"Host: {host}"]).status == 403


@pytest.mark.parametrize("headers", [[], ["Host: localhost:{port}"] * 2, ["Host: localhost:{port}",
    "Host: evil.example"],
                                     ["Host: evil.example", "host: localhost:{port}"]],
                         ids=["none", "twice", "foreign-second", "foreign-first"])
def test_no_host_or_two_are_400(site, headers):
    refused_everywhere(site, 400, [RIGHT, *(header.format(port=site.port) for header in headers)])
    answer = ask(site, "GET", "/healthz", [header.format(port=site.port) for header in headers])
    assert answer.status == 400


def test_http_1_0_needs_a_host_as_well(site):
    with site.raw() as raw:
        assert raw.ask("GET /v1/status HTTP/1.0", [RIGHT, None]).answer().status == 400


@pytest.mark.parametrize("origin", [
    "null", "", "http://evil.example", "http://evil.example:{port}", "https://localhost:{port}",
    "localhost:{port}",
    "http://localhost", "http://localhost:{other}", "http://localhost:{port}/",
    "http://localhost:{port}.evil.example",
    "file://", "http://", "HTTP://localhost:{port}", "chrome-extension://x",
    "http://user@localhost:{port}"])
def test_foreign_origin_is_403(site, origin):
    origin = origin.format(port=site.port, other=site.port + 1)
    headers = [f"Host: {site.host}", f"Origin: {origin}"]
    refused_everywhere(site, 403, [RIGHT, *headers])
    assert ask(site, "GET", "/healthz", headers).status == 403


def test_two_origins_are_400(site):
    refused_everywhere(site, 400, [RIGHT, f"Host: {site.host}", f"Origin: http://{site.host}",
                                   "Origin: http://evil.example"])


@pytest.mark.parametrize("listen,name", [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "::1"), ("[::1]:0",
    "::1")])
def test_where_it_listens_on_all_addresses_any_number_is_taken_and_no_name(start_server, folder,
    listen, name):
    server = start_server(http_config(folder, http=listen))
    control = Control(server, tcp=True)
    control.address = (name, control.port)
    own = ["localhost", "127.0.0.1", "[::1]"]
    others = ["192.0.2.7", "[2001:db8::1]", "10.1.2.3"]
    def status(host):
        return ask(control, "GET", "/v1/status", [RIGHT, f"Host: {host}"]).status

    for host in own + others:
        expected = 200 if host in own or listen != "[::1]:0" else 403
        assert status(f"{host}:{control.port}") == expected, host
        assert status(host) == 403, host
    for host in ("evil.example", "unix:/x", "localhost.", "10.1.2", "[::1", "1"):
        assert status(f"{host}:{control.port}") == 403, host


# --- Content-Type -------------------------------------------------------------------------------


@pytest.mark.parametrize("types,status", [
    ([], 415), (["text/plain"], 415), (["application/x-www-form-urlencoded"], 415),
    (["multipart/form-data"], 415),
    (["application/jsonx"], 415), (["application"], 415), ([""], 415),
    (["text/plain; application/json"], 415),
    (["application/json-patch+json"], 415), (["application/json", "text/plain"], 400),
    (["application/json"] * 2, 400)])
def test_change_without_json_is_refused(site, types, status):
    headers = [f"Content-Type: {value}" for value in types]
    for method, path, body in CHANGES:
        answer = ask(site, method, path, [RIGHT, f"Host: {site.host}", *headers], body)
        assert answer.status == status, (method, path, answer.body)
        assert status == 400 or "application/json" in answer.json["error"]


@pytest.mark.parametrize("value", ["application/json", "Application/JSON",
                                   "application/json; charset=utf-8",
                                   "application/json;charset=UTF-8"])
def test_change_with_json_is_done(start_server, folder, value):
    control = Control(start_server(http_config(folder)), tcp=True)
    headers = [RIGHT, f"Host: {control.host}", f"Content-Type: {value}"]
    assert ask(control, "POST", "/v1/reload", headers, b"{}").status == 200
    assert ask(control, "DELETE", "/v1/clients/web-1", headers).status == 404
    assert ask(control, "DELETE", "/v1/shutdown", headers).status == 404


def test_socket_asks_for_none_of_all_this(start_server, folder):
    control = Control(start_server(http_config(folder)))
    for headers in (["Host: evil.example"], ["Host: x", "Origin: http://evil.example"],
                    ["Host: x", "Authorization: Bearer wrong"],
                    ["Host: x", "Content-Type: text/plain"]):
        assert ask(control, "POST", "/v1/reload", headers, b"").status == 200
        assert ask(control, "GET", "/metrics", headers).status == 200


# --- the unix socket ----------------------------------------------------------------------------


def test_socket_is_for_owner_and_group(server):
    path = server.folder / "cliser.sock"
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    server.stop()
    assert not path.exists(), "the socket goes with the server"


def test_umask_does_not_change_who_may_open_it(start_server):
    server = start_server(wrap=["sh", "-c", 'umask 0; exec "$@"', "sh"])
    assert stat.S_IMODE((server.folder / "cliser.sock").stat().st_mode) == 0o660
    server.stop()
    server = start_server(wrap=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    assert stat.S_IMODE((server.folder / "cliser.sock").stat().st_mode) == 0o660


@needs_root
def test_other_users_may_not_open_it(server):
    code = f"import socket; socket.socket(socket.AF_UNIX).connect('{server.folder}/cliser.sock')"
    asked = subprocess.run(["/usr/bin/python3", "-c", code], user=65534, group=65534,
                           extra_groups=[], capture_output=True, text=True)
    assert "PermissionError" in asked.stderr


@needs_root
def test_socket_belongs_to_the_user_that_the_server_became(start_server, folder):
    folder.chmod(0o777)
    server = start_server({"server": {"user": "nobody"}})
    info = (server.folder / "cliser.sock").stat()
    assert info.st_uid == 65534 and stat.S_IMODE(info.st_mode) == 0o660
    assert Control(server).get("/healthz")[0] == 200
    server.stop()
    assert not (server.folder / "cliser.sock").exists()


def test_stale_socket_is_replaced_and_a_live_one_is_not(start_server, folder):
    server = start_server()
    server.kill()
    assert (folder / "cliser.sock").exists()
    server = start_server(folder=folder)
    assert Control(server).get("/healthz")[0] == 200
    (folder / "other").mkdir()
    result = run("test.ini", folder=folder / "other",
                 ini=ini_text(merged({"control": {"socket": f"{folder}/cliser.sock"}})))
    assert result.returncode == 1 and "ready:" not in result.stderr
    assert re.search(r"^cliserd: .*cliser\.sock.*in use", result.stderr, re.M), result.stderr
    assert Control(server).get("/healthz")[0] == 200


def test_file_in_the_place_of_the_socket_is_left_alone(bin_dir, folder):
    (folder / "cliser.sock").write_text("a letter")
    result = run("test.ini", folder=folder, ini=ini_text(merged({})))
    assert result.returncode == 1 and "cliser.sock" in result.stderr
    assert (folder / "cliser.sock").read_text() == "a letter"


def test_port_that_is_in_use_is_exit_1_with_the_address(bin_dir, folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("test.ini", folder=folder, ini=ini_text(merged(http_config(folder,
            http=address))))
    assert result.returncode == 1
    assert re.search(rf"^cliserd: .*{re.escape(address)}", result.stderr, re.M), result.stderr
    assert "ready:" not in result.stderr and not (folder / "cliser.sock").exists()


# --- the configuration --------------------------------------------------------------------------

WRONG = {
    "http-without-token": ({"http": "127.0.0.1:0"}, "http", "token_file"),
    "http-is-a-word": ({"http": "here", "token_file": "token"}, "http", "here"),
    "http-is-a-port": ({"http": "3333", "token_file": "token"}, "http", "3333"),
    "http-is-a-name": ({"http": "localhost:3333", "token_file": "token"}, "http", "localhost"),
    "http-is-a-path": ({"http": "unix:/tmp/x", "token_file": "token"}, "http", "unix"),
    "http-of-a-port-too-high": ({"http": "127.0.0.1:65536", "token_file": "token"}, "http",
                                "65536"),
    "missing-token-file": ({"http": "127.0.0.1:0", "token_file": "nowhere"}, "token_file",
                           "nowhere"),
    "empty-token-file": ({"http": "127.0.0.1:0", "token_file": "empty"}, "token_file", "empty"),
    "folder-for-a-token-file": ({"http": "127.0.0.1:0", "token_file": "."}, "token_file",
                                "token_file"),
    "token-of-a-megabyte": ({"http": "127.0.0.1:0", "token_file": "huge"}, "token_file", "huge"),
    "token-of-129-bytes": ({"http": "127.0.0.1:0", "token_file": "long"}, "token_file", "128"),
    "token-with-a-blank-behind-it": ({"http": "127.0.0.1:0", "token_file": "blank"}, "token_file",
                                     "blank"),
    "token-of-no-ascii": ({"http": "127.0.0.1:0", "token_file": "latin"}, "token_file",
                          "printable"),
    "token-file-without-http": ({"token_file": "nowhere"}, "token_file", "nowhere"),
    "socket-path-too-long": ({"socket": "x" * 150}, "socket", "socket"),
}


@pytest.mark.parametrize("control,key,word", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("options", [[], ["-t"]], ids=["start", "check"])
def test_wrong_control_section_is_exit_2_at_its_line(bin_dir, folder, control, key, word, options):
    write_secret(folder / "token", "secret\n")
    write_secret(folder / "empty", "")
    write_secret(folder / "huge", "x" * 1000000)
    write_secret(folder / "long", "x" * 129)
    write_secret(folder / "blank", "secret \n")
    write_secret(folder / "latin", b"secret\xe9\n")
    text = ini_text(merged({"control": control}))
    line = next(number for number, line in enumerate(text.splitlines(), 1)
                if line.startswith(f"{key} ="))
    result = run(*options, "test.ini", folder=folder, ini=text)
    assert result.returncode == 2, result.stderr
    assert re.search(rf"^cliserd: test\.ini:{line}: .*{re.escape(word)}", result.stderr,
                     re.M), result.stderr
    assert "secret" not in result.stderr and not (folder / "cliser.sock").exists()
