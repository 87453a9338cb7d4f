"""
Peers of the control side that break the rules, or keep them in ways that nobody else does. Whatever
they do, others are served, the clients are left alone, and nothing is done that was not allowed.
"""

import contextlib
import resource
import json
import socket
import time

import harness
import pytest

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def control(start_server, folder):
    """A server with both sides of the control API, and the address of each."""
    harness.write_secret(folder / "token", TOKEN + "\n")
    (folder / "token").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start_server({"control": {"socket": "cliser.sock", "http": f"127.0.0.1:{port}",
                                       "token_file": str(folder / "token")}})
    return server, (str(folder / "cliser.sock"), ("127.0.0.1", port))


def connect(address, timeout=5.0):
    family, address = harness.address_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(harness.limit(timeout))
    sock.connect(address)
    return sock


def request_bytes(address, method, path, body=None, headers=()):
    host = "localhost" if isinstance(address, str) else f"localhost:{address[1]}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}",
             "Content-Type: application/json", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def read_all(sock):
    """What comes until the end of the stream, a reset included."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def read_answers(sock, count):
    """The statuses of so many answers that come one behind the other."""
    data = b""
    while data.count(b"HTTP/1.1 ") < count or not data.endswith(b"}"):
        chunk = sock.recv(65536)
        assert chunk, f"the stream ended behind {data!r}"
        data += chunk
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def exchange(address, data, timeout=5.0):
    with connect(address, timeout) as sock:
        sock.sendall(data)
        return read_all(sock)


def open_events(address):
    """An event stream, behind its first sign of life."""
    sock = connect(address)
    sock.sendall(request_bytes(address, "GET", "/v1/events"))
    data = b""
    while b":\n\n" not in data:
        data += sock.recv(65536)
    return sock


def status_of(address, method="GET", path="/v1/status", body=None, headers=(), timeout=5.0):
    data = request_bytes(address, method, path, body, [*headers, "Connection: close"])
    return int(exchange(address, data, timeout).split(b" ", 2)[1])


def test_pipelining_and_half_closing_leaves_the_side_open(control):
    _, sides = control
    for side in sides:
        for count in range(1, 6):
            with connect(side) as sock:
                sock.sendall(request_bytes(side, "GET", "/healthz") * count)
                sock.shutdown(socket.SHUT_WR)
                assert read_answers(sock, count) == [200] * count
            assert status_of(side) == 200


@pytest.mark.parametrize("watched", [False, True], ids=["alone", "beside_an_event_stream"])
def test_operators_get_in_when_clients_took_all_descriptors(control, watched):
    server, sides = control
    clients, others = [], []
    if watched:
        others += [open_events(side) for side in sides]
    old = server.set_limit(resource.RLIMIT_NOFILE, server.fds() + 3)
    for _ in range(20):
        clients.append(connect(server.address))
    server.wait_log("accept_paused")
    for _ in range(20):
        for side in sides:
            assert status_of(side) == 200

    # More operators than descriptors were kept for have to wait, and nobody spins meanwhile.
    others += [connect(side) for side in sides for _ in range(10)]
    server.wait_log("control_accept_paused")
    before = server.cpu_seconds()
    time.sleep(1)
    assert server.cpu_seconds() - before < 0.3
    for sock in others[2 * watched:] + clients:
        sock.close()
    for side in sides:
        assert status_of(side) == 200
    server.set_limit(resource.RLIMIT_NOFILE, old)
    for sock in others:
        sock.close()


def test_slow_patterns_hold_nobody_up(control):
    """The slowest patterns that fnmatch knows, on IDs made for them."""
    server, sides = control
    slow = [f"*{'[!b]' * 31}{number}" for number in range(100, 356)]
    body = {"waves": [slow], "grace": "0s", "hold": "0s"}
    clients = [harness.Client(server).handshake("a" * 60 + f"{number:04}") for number in range(100)]
    side = sides[0]
    with connect(side, timeout=60) as dry, connect(side, timeout=60) as order:
        for sock, dry_run in ((dry, True), (order, False)):
            text = json.dumps({**body, "dry_run": dry_run}).encode()
            sock.sendall(request_bytes(side, "POST", "/v1/shutdown", text))
        for _ in range(10):
            begin = time.monotonic()
            harness.Client(server).expect(harness.ASK_PASSWORD)
            assert time.monotonic() - begin < harness.limit(0.15)
        assert dry.recv(12) == b"HTTP/1.1 200"
        assert order.recv(12) == b"HTTP/1.1 202"
    for client in clients:
        client.close()


FRAMINGS = {
    "two-lengths": "Content-Length: 2\r\nContent-Length: 4\r\n",
    "length-and-chunks": "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "two-encodings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "other-encoding": "Transfer-Encoding: gzip, chunked\r\n",
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unclear_framing_ends_the_connection(control, method, framing):
    """What stands behind such a request must not be taken for the next one."""
    _, sides = control
    for side in sides:
        data = request_bytes(side, method, "/v1/shutdown")[:-2] + FRAMINGS[framing].encode()
        answers = exchange(side, data + b"\r\n" + request_bytes(side, "GET", "/v1/status"))
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("method,path", [("GET", "/healthz"), ("POST", "/v1/reload")])
def test_a_chunk_that_never_begins_does_not_spin(control, method, path):
    server, sides = control
    stuck = []
    for side in sides:
        stuck.append(connect(side))
        stuck[-1].sendall(request_bytes(side, method, path, headers=["Transfer-Encoding: chunked"]))
        with contextlib.suppress(OSError):
            stuck[-1].sendall(b"2;" + b"x" * 60000)
    before = server.cpu_seconds()
    time.sleep(1)
    assert server.cpu_seconds() - before < 0.3
    for sock in stuck:
        sock.close()
    for side in sides:
        assert status_of(side) == 200


def test_event_streams_that_were_dropped_make_room(control):
    _, sides = control
    for side in sides:
        for sock in [open_events(side) for _ in range(32)]:
            sock.close()
        harness.wait_until(lambda side=side: can_watch(side), 4, "room for an event stream")


def can_watch(side):
    with connect(side) as sock:
        sock.sendall(request_bytes(side, "GET", "/v1/events"))
        return sock.recv(12) == b"HTTP/1.1 200"
