"""HTTP as such: methods, paths, bodies, what is no HTTP at all, and too much of everything.
Whatever is done here, clients are asked in time."""

import contextlib
import json
import random
import socket
import struct
import threading
import time

import pytest

from control import Control, http_config
from harness import Client, Witness, limit, sanitized, wait_until

CONNECTIONS = 64
BODY = 256 * 1024


@pytest.fixture
def control(server):
    return Control(server)


@pytest.fixture
def under_witness(start_server):
    """A server whose clients must not notice anything, and which has forgotten it afterwards."""
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    with Witness(server) as witness:
        control.get("/v1/status")
        wait_until(lambda: control.metrics()["cliser_control_connections"] == 1)
        fds, memory = server.fds(), server.rss_kib()
        yield control
        witness.wait_asked(2)
        witness.check(max_gap=1.0)
    wait_until(lambda: control.metrics()["cliser_control_connections"] == 1, 5,
               what="nobody left but whoever asks")
    wait_until(lambda: server.fds() <= fds, what="descriptors as before")
    if not sanitized():
        assert server.rss_kib() - memory < 8 * 1024


# --- methods and paths --------------------------------------------------------------------------

PATHS = {
    "/healthz": "GET", "/readyz": "GET", "/metrics": "GET", "/v1/status": "GET",
    "/v1/clients": "GET",
    "/v1/clients/web-1": "GET, DELETE", "/v1/clients/web-1/ping": "POST",
    "/v1/clients/web-1/disconnect": "POST", "/v1/shutdown": "POST, GET, DELETE",
    "/v1/shutdown/targets": "GET", "/v1/events": "GET", "/v1/reload": "POST",
}


@pytest.mark.parametrize("path,allowed", PATHS.items(), ids=PATHS)
def test_other_methods_are_405_and_allow_says_which(server, control, path, allowed):
    with Client(server).handshake("web-1") as client:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO",
                       "get", "CONNECT"):
            if method in allowed.split(", ") or (method == "HEAD" and "GET" in allowed):
                continue
            answer = control.request(method, path, b"" if method in ("PUT", "PATCH") else None)
            assert (answer.status, answer.header("allow")) == (405, allowed), method
        client.expect_silence(0.02)


@pytest.mark.parametrize("path", [path for path, allowed in PATHS.items() if "GET" in allowed])
def test_head_is_get_without_a_body(server, control, path):
    with Client(server).handshake("web-1"), control.raw() as raw:
        head = raw.ask(f"HEAD {path}").answer(to_head=True)
        assert head.status == 200 and head.header("content-type")
        if head.header("connection") == "close":
            assert raw.read_to_end() in (b"", b"0\r\n\r\n"), "at most the end of no chunks"
        else:
            # Nothing that could be taken for the next answer is behind it.
            assert raw.ask("GET /healthz").answer().json == {"ok": True}


@pytest.mark.parametrize("override", ["X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE",
                                      "X-Method-Override: DELETE"])
def test_method_is_overridden_by_nothing(server, control, override):
    with Client(server).handshake("web-1"):
        pass
    wait_until(lambda: not control.client("web-1")["cstatus"])
    for method in ("GET", "POST"):
        control.request(method, "/v1/clients/web-1", headers=[override])
    assert control.request("GET", "/v1/clients/web-1").status == 200
    assert control.request("GET", "/v1/clients/web-1?_method=DELETE").status == 400
    assert control.client("web-1")["sid"] == 1


@pytest.mark.parametrize("path", [
    "/v1", "/v1/", "/v2/status", "/v1/status/", "//v1/status", "/v1//status", "/V1/status",
    "/v1/statu",
    "/v1/status%20", "/v1/./status", "/v1/x/../status", "/v1/clients/", "/v1/clients/a/b",
    "/v1/clients/a/ping/",
    "/v1/clients//ping", "/v1/shutdown/", "/etc/passwd", "/../../etc/passwd", "/%2e%2e/cliser.ini",
    "/cliser.ini", "/" + "a" * 8000, "/v1/status;x", "*", "v1/status", "/v1/status%2f"])
def test_other_paths_are_404(control, path):
    answer = control.request("GET", path)
    assert answer.status == 404 and answer.json["error"]


@pytest.mark.parametrize("path", [path for path in PATHS if path not in ("/v1/clients",
    "/v1/shutdown/targets")])
def test_parameters_where_there_are_none_are_400(server, control, path):
    with Client(server).handshake("web-1") as client:
        for method in PATHS[path].split(", "):
            for query in ("x=1", "x", "limit=1", "=", "&"):
                answer = control.request(method, f"{path}?{query}")
                assert answer.status == 400 and "parameter" in answer.json["error"]
        client.expect_silence(0.02)


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/reload", "/v1/clients/web-1/disconnect",
                                  "/v1/clients/web-1/ping"])
def test_request_that_takes_no_body_takes_none(server, control, path):
    with Client(server).handshake("web-1") as client:
        for body in (b"x", b"[]", b"null", b'{"a":1}', b"{", b"{}{}", b"1"):
            answer = control.request("POST", path, body)
            assert answer.status == 400 and "body" in answer.json["error"]
        client.expect_silence(0.02)


def chunked(data, size=1000):
    chunks = [data[at:at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def test_body_may_come_in_chunks_and_in_any_pieces(control):
    body = json.dumps({"waves": [["a*"]], "dry_run": True}).encode()
    expected = control.post("/v1/shutdown", json.loads(body))
    assert expected[0] == 200
    for size in (1, 7, 1000):
        answer = control.request("POST", "/v1/shutdown", chunked(body, size),
                                 ["Transfer-Encoding: chunked"])
        assert (answer.status, answer.json) == expected
    whole = b"POST /v1/shutdown HTTP/1.1\r\nHost: localhost\r\n"
    whole += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with control.raw() as raw:
        for at in range(len(whole)):
            raw.send(whole[at:at + 1])
        answer = raw.answer()
        assert (answer.status, answer.json) == expected
        for at in range(0, len(whole), 20):
            with control.raw() as halves:
                halves.send(whole[:at])
                time.sleep(0.002)
                halves.send(whole[at:])
                assert halves.answer().json == expected[1]


def test_body_of_256_KiB_is_read_and_a_longer_one_is_413(control):
    order = json.dumps({"waves": [["web-1", "db-*"]], "dry_run": True}).encode()
    longest = order + b" " * (BODY - len(order))
    assert control.request("POST", "/v1/shutdown", longest).status == 200
    assert control.request("POST", "/v1/shutdown", chunked(longest, 65536),
                           ["Transfer-Encoding: chunked"]).status == 200
    for body in (longest + b" ", longest * 8):
        # It is refused before it is there; what is sent all the same need not be read.
        with control.raw() as raw:
            raw.ask("POST /v1/shutdown", [f"Content-Length: {len(body)}"])
            answer = raw.answer()
            assert answer.status == 413 and "256 KiB" in answer.json["error"]
            assert answer.header("connection") == "close"
        answer = control.request("POST", "/v1/shutdown", chunked(body, 65536),
                                 ["Transfer-Encoding: chunked"])
        assert answer.status == 413 and "256 KiB" in answer.json["error"]
    for length in ("18446744073709551616", "99999999999999999999999", "9223372036854775808"):
        with control.raw() as raw:
            raw.ask("POST /v1/shutdown", [f"Content-Length: {length}"])
            assert raw.head().status == 413
    assert control.get("/v1/shutdown") == (200, {"state": "none"})


def test_expect_100_is_answered_and_a_refusal_comes_before_the_body(control):
    with control.raw() as raw:
        raw.ask("POST /v1/reload", ["Expect: 100-continue", "Content-Length: 2"])
        assert raw.head().status == 100
        raw.send(b"{}")
        assert raw.answer().status == 200
        raw.ask("POST /v1/nothing", ["Expect: 100-continue", "Content-Length: 2"])
        assert raw.answer().status == 404


# --- what is no request -------------------------------------------------------------------------

DELETE = "DELETE /v1/clients/web-1"
BEGIN = f"{DELETE} HTTP/1.1\r\nHost: x\r\n"
MALFORMED = {
    "no-host": (400, f"{DELETE} HTTP/1.1\r\n\r\n"),
    "two-lengths": (400,
                    f"{BEGIN}Content-Length: 0\r\nContent-Length: 2\r\n\r\n"),
    "same-length-twice": (400,
                          f"{BEGIN}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    "length-and-chunks": (400, f"{BEGIN}Content-Length: 2\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "gzip": (400, f"{BEGIN}Transfer-Encoding: gzip\r\n\r\n"),
    "chunked-twice": (400,
                      f"{BEGIN}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "nul-in-path": (400, f"{DELETE}%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "length-of-letters": (400, f"{BEGIN}Content-Length: two\r\n\r\n"),
    "negative-length": (400, f"{BEGIN}Content-Length: -1\r\n\r\n"),
    "bad-chunk": (400, f"{BEGIN}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "huge-chunk": (413,
                   f"{BEGIN}Transfer-Encoding: chunked\r\n\r\n{'f' * 20}\r\n"),
    "no-colon": (400, f"{BEGIN}no colon\r\n\r\n"),
    "http-2": (505, f"{DELETE} HTTP/2.0\r\nHost: x\r\n\r\n"),
    "header-too-large": (431, f"{BEGIN}X: {'x' * 70000}\r\n\r\n"),
    "too-many-headers": (431, f"{BEGIN}" + "X: x\r\n" * 5000 + "\r\n"),
    "path-too-long": (414, f"{DELETE}{'x' * 70000} HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls": (0, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "x" * 40 + "\r\n\r\n"),
    "one-word": (0, "DELETE\r\n\r\n"),
    "a-client": (0, "110\r\nsecret\r\n"),
}


@pytest.mark.parametrize("status,text", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_and_does_nothing(server, control, status, text):
    """0: there is nobody to whom an answer would say anything."""
    with Client(server).handshake("web-1"):
        pass
    wait_until(lambda: not control.client("web-1")["cstatus"])
    with control.raw() as raw:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.send(text.encode("latin-1"))
            raw.sock.shutdown(socket.SHUT_WR)
        told = raw.read_to_end()
        if status:
            assert told.startswith(b"HTTP/1.1 %d " % status), told
        else:
            assert told == b"" or told.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), told
    assert control.client("web-1")["sid"] == 1, "nothing was done"


def test_headers_of_15_KiB_are_read(control):
    assert control.request("GET", "/v1/status", headers=["X: " + "x" * 15000]).status == 200


def test_random_bytes_harm_nobody(under_witness):
    chance = random.Random(3)
    valid = (b"POST /v1/shutdown HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"2\r\n{}\r\n0\r\n\r\n")
    for number in range(300):
        with under_witness.raw() as raw, contextlib.suppress(OSError):
            data = bytearray(valid if number % 3 else chance.randbytes(chance.randrange(1, 3000)))
            for _ in range(chance.randrange(1, 8) if number % 3 else 0):
                data[chance.randrange(len(data))] = chance.randrange(256)
            raw.send(bytes(data))
            if number % 5 == 0:
                raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif number % 2:
                raw.sock.shutdown(socket.SHUT_WR)
                raw.sock.settimeout(0.01)
                raw.sock.recv(100000)
    assert under_witness.get("/v1/shutdown") == (200, {"state": "none"})


# --- connections --------------------------------------------------------------------------------


def test_connection_stays_for_the_next_request_and_pipelined_ones_are_answered_in_order(control):
    with control.raw() as raw:
        for _ in range(3):
            assert raw.ask("GET /healthz").answer().json == {"ok": True}
        wanted = ["/healthz", "/v1/clients/nobody", "/v1/clients", "/readyz", "/v1/shutdown"] * 20
        raw.send(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()
                          for path in wanted))
        for path in wanted:
            answer = raw.answer()
            assert (answer.status, answer.json) == control.get(path), path


def test_answer_that_ends_the_connection_says_so(control):
    with control.raw() as raw:
        raw.ask("GET /v1/nothing")
        answer = raw.answer()
        if answer.header("connection") == "close":
            raw.expect_close()
        else:
            assert raw.ask("GET /healthz").answer().json == {"ok": True}


def test_http_1_0_and_connection_close_end_with_the_answer(control, server):
    with Client(server).handshake("web-1"):
        for line, headers in (("GET /v1/clients HTTP/1.0", [None]),
                              ("GET /v1/clients HTTP/1.0", []),
                              ("GET /v1/clients", ["Connection: close"])):
            with control.raw() as raw:
                answer = raw.ask(line, headers).answer()
                assert answer.status == 200 and [record["cid"]
                                                 for record in answer.json["clients"]] == ["web-1"]
                raw.expect_close()


def test_half_closed_requests_are_answered(control, server):
    with Client(server).handshake("web-1") as client:
        for path in ("/v1/status", "/v1/clients", "/metrics"):
            with control.raw() as raw:
                raw.ask(f"GET {path}")
                raw.sock.shutdown(socket.SHUT_WR)
                assert raw.answer().status == 200
                raw.expect_close()
        with control.raw() as raw:
            raw.ask("POST /v1/clients/web-1/ping", body=b"")
            raw.sock.shutdown(socket.SHUT_WR)
            client.expect(b"100: keep alive\r\n")
            client.send_line("100")
            assert raw.answer().status == 200
            raw.expect_close()
        # Half a request is none.
        with control.raw() as raw:
            raw.send(b"POST /v1/clients/web-1/disconnect HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: 2\r\n\r\n{")
            raw.sock.shutdown(socket.SHUT_WR)
            client.expect_silence(0.1)


def test_500_idle_connections_keep_nobody_out(under_witness):
    """64 are served; whoever has waited longest without a request makes room."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(under_witness.raw()) for _ in range(500)]
        for number in range(0, 500, 2):
            with contextlib.suppress(OSError):
                idle[number].send(b"GET /v1/status HTTP/1.1\r\n")
        for _ in range(20):
            began = time.monotonic()
            assert under_witness.get("/v1/status")[0] == 200
            assert time.monotonic() - began < limit(1)
        assert under_witness.metrics()["cliser_control_connections"] <= CONNECTIONS


def test_those_who_wait_for_an_answer_are_not_dropped_for_newcomers(under_witness, start_server):
    server = start_server()
    control = Control(server)
    with Client(server).handshake("web-1") as client, contextlib.ExitStack() as stack:
        asking = [stack.enter_context(control.raw()) for _ in range(30)]
        for raw in asking:
            raw.ask("POST /v1/clients/web-1/ping", body=b"")
        for _ in asking:
            client.expect(b"100: keep alive\r\n")
        streams = [stack.enter_context(control.events()) for _ in range(10)]
        for _ in range(200):
            stack.enter_context(control.raw())
        assert control.get("/v1/status")[0] == 200
        client.send(b"100\n" * len(asking))
        assert {raw.answer().status for raw in asking} == {200}
        client.close()
        for stream in streams:
            stream.expect("disconnected", cid="web-1")


def test_many_lists_at_once_keep_no_client_waiting(under_witness):
    """Readers of long lists, some of whom do not read, and floods of requests on one connection."""
    stop = time.monotonic() + 1.5
    failures = []

    def ask(path, expected):
        try:
            while time.monotonic() < stop:
                with under_witness.raw() as raw:
                    for _ in range(20):
                        raw.ask(f"GET {path}")
                    for _ in range(20):
                        assert raw.answer(20).status == expected
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=ask, args=arguments) for arguments in (
        ("/v1/clients?limit=1000&match=*w*i*t*n*e*s*s*", 200), ("/metrics", 200),
        ("/v1/clients", 200),
        ("/v1/clients?limit=0", 400))]
    with contextlib.ExitStack() as stack:
        for thread in threads:
            thread.start()
        for _ in range(20):
            raw = stack.enter_context(under_witness.raw())
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    raw.sock.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "port"])
def test_full_port_leaves_the_socket_alone_and_the_other_way_round(start_server, folder, tcp):
    server = start_server(http_config(folder))
    with contextlib.ExitStack() as stack:
        full = Control(server, tcp=tcp)
        for _ in range(32):
            stack.enter_context(full.events())
        with Client(server).handshake("web-1") as client:
            for _ in range(CONNECTIONS - 32):
                raw = stack.enter_context(full.raw())
                raw.ask("POST /v1/clients/web-1/ping", ["Content-Type: application/json"], b"")
            assert Control(server, tcp=not tcp).get("/v1/status")[0] == 200
            for _ in range(20):
                client.expect(b"100: keep alive\r\n")
