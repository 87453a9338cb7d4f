"""Rows K: the control side under attack; the clients must not notice, and nothing may happen."""

import contextlib
import socket
import threading
import time

import pytest

import harness
from control import TOKEN, Control, http_config
from harness import Client, limit, wait_until
from oracle import FULL, INTERVAL_S, fault

CONNECTIONS = 200


def start(case, folder):
    """A server with both sides; returns its TCP side, whose token is right."""
    server = case.start(http_config(folder, socket="cliser.sock"))
    return Control(server, tcp=True)


def connect(control):
    sock = socket.socket(control.family, socket.SOCK_STREAM)
    sock.settimeout(limit(5))
    sock.connect(control.address)
    return sock


SLOW = {
    "nothing": lambda n: b"",
    "a-byte-at-a-time": lambda n: b"G"[:n < 1],
    "headers-without-end": lambda n: b"X-%d: y\r\n" % n if n else b"GET /healthz HTTP/1.1\r\n",
    "body-without-end": lambda n: b"" if n else
                        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
}


@pytest.mark.parametrize("say", SLOW.values(), ids=SLOW.keys())
@fault("K01", "hundreds of control connections that never finish", rounds=2, full=15)
def test_slow_peers_are_capped_and_dropped(case, folder, say):
    tcp = start(case, folder)
    socks = []
    for side in (tcp, case.control):
        for _ in range(CONNECTIONS):
            with contextlib.suppress(OSError, TimeoutError):
                sock = socket.socket(side.family, socket.SOCK_STREAM)
                sock.setblocking(False)
                socks.append(sock)
                sock.connect(side.address)
    for number in range(case.rounds):
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(say(number))
        time.sleep(INTERVAL_S)  # the witnesses are asked meanwhile
        assert case.server.fds() <= case.fds + 2 * 64 + 2
        # An operator gets in, by the place of whoever has been idle for longest.
        assert case.control.request("GET", "/healthz", timeout=15).status == 200
    for sock in socks:
        sock.close()


GET = b"GET /v1/status HTTP/1.1\r\n"
POST = b"POST /v1/shutdown HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ODD = {
    "huge-header": GET + b"X: " + b"x" * 100000 + b"\r\n\r\n",
    "many-headers": GET + b"X: y\r\n" * 20000 + b"\r\n",
    "huge-body": POST + b"Content-Length: 99999999\r\n\r\n" + b"{" * 400000,
    "negative-length": POST + b"Content-Length: -1\r\n\r\n",
    "endless-length": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "bad-chunk": CHUNKED + b"zz\r\n",
    "huge-chunk": CHUNKED + b"ffffffffffffffff\r\nx",
    "chunk-extension": CHUNKED + b"1;" + b"x" * 50000 + b"\r\n{\r\n0\r\n\r\n",
    "smuggled": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                b"DELETE /v1/clients/witness-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 600,
    "nul-in-path": b"GET /v1/clients/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long-path": b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@fault("K01", "requests that are too long, or no requests", rounds=1, full=30)
def test_odd_requests_are_refused(case, folder):
    tcp = start(case, folder)
    for _ in range(case.rounds):
        for side in (tcp, case.control):
            for name, data in ODD.items():
                with connect(side) as sock, contextlib.suppress(OSError):
                    sock.settimeout(limit(0.5))  # some are not answered at all
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    answer = sock.recv(65536)
                    assert not answer or answer.split()[1][:1] in (b"4", b"5"), (name, answer)
    assert case.control.get("/v1/shutdown")[1]["state"] == "none"


@fault("K02", "readers of events that stop, talk, or vanish", rounds=1, full=20)
def test_event_streams_cost_what_they_may(case, folder):
    tcp = start(case, folder)
    case.allow("each coming and going is a line", log_lines=3000 * case.rounds + 1000)
    for _ in range(case.rounds):
        streams = [side.events(rcvbuf=1) for side in (tcp, case.control) for _ in range(10)]
        before = case.server.rss_kib()
        for number in range(300):  # what they do not read
            with Client(case.server) as client:
                client.handshake(f"seen-{number}")
        for number, stream in enumerate(streams):
            with contextlib.suppress(OSError):
                if number % 3 == 0:
                    stream.raw.sock.setblocking(False)
                    while True:
                        stream.raw.sock.send(b"x" * 65536)  # they say what nobody wants to know
        time.sleep(INTERVAL_S)  # the witnesses are asked meanwhile
        if not harness.sanitized():
            assert case.server.rss_kib() - before < 20 * 1024
        for number, stream in enumerate(streams):
            if number % 2:
                stream.raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" * 2)
            stream.close()
        wait_until(lambda: case.control.metrics()["cliser_event_subscribers"] == 0, 20,
                   "no streams left")


# What a page elsewhere, or somebody without the token, can make a browser or a program send.
FORGED = {
    "foreign-host": ["Host: evil.example"],
    "rebound-host": ["Host: evil.example:{port}"],
    "no-host": ["Host:"],
    "foreign-origin": ["Origin: https://evil.example"],
    "null-origin": ["Origin: null"],
    "form": ["Content-Type: application/x-www-form-urlencoded"],
    "text": ["Content-Type: text/plain"],
    "wrong-token": ["Authorization: Bearer wrong"],
    "empty-token": ["Authorization: Bearer "],
    "basic": ["Authorization: Basic b3BlbiBzZXNhbWU="],
    "two-tokens": ["Authorization: Bearer wrong", f"Authorization: Bearer {TOKEN}"],
    "token-and-more": [f"Authorization: Bearer {TOKEN}x"],
    "half-a-token": [f"Authorization: Bearer {TOKEN[:-1]}"],
    "override": ["X-HTTP-Method-Override: DELETE", "Authorization: Bearer wrong"],
}
CHANGES = [("POST", "/v1/shutdown", b'{"waves": [["*"]], "grace": "1s"}'),
           ("DELETE", "/v1/shutdown", None), ("POST", "/v1/reload", b""),
           ("POST", "/v1/clients/witness-1/disconnect", b""),
           ("POST", "/v1/clients/witness-1/ping", b""),
           ("DELETE", "/v1/clients/warm-up", None)]


@fault("K03", "changes in an operator's name", rounds=1, full=30)
def test_forged_requests_change_nothing(case, folder):
    tcp = start(case, folder)
    mark = case.server.mark_log()
    for _ in range(case.rounds):
        for headers in FORGED.values():
            headers = [header.format(port=tcp.port) for header in headers]
            names = {header.split(":")[0] for header in headers}
            if "Content-Type" not in names:
                headers.append("Content-Type: application/json")
            for method, path, body in CHANGES:
                answer = tcp.request(method, path, body, headers)
                assert answer.status in (400, 401, 403, 415), (headers, answer.status)
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"):
            for _, path, _ in CHANGES:
                assert tcp.request(method, path, headers=["Authorization: Bearer x"]).status >= 400
    assert case.control.get("/v1/shutdown")[1]["state"] == "none"
    assert case.control.client("warm-up")
    assert not case.server.find_log(r"\breloaded\b", mark)


@fault("K04", "metrics and lists asked for without a pause", rounds=1)
def test_scrapes_hold_nobody_up(case, folder):
    start(case, folder)
    stop = threading.Event()
    asked = []

    def scrape(path):
        while not stop.is_set():
            asked.append(case.control.request("GET", path).status)

    threads = [threading.Thread(target=scrape, args=(path,))
               for path in ("/metrics", "/metrics", "/v1/clients?limit=1000", "/v1/status")]
    for thread in threads:
        thread.start()
    end = time.monotonic() + (30 if FULL else 3)
    while time.monotonic() < end:
        with Client(case.server) as client:
            began = time.monotonic()
            client.handshake("beside")
            assert time.monotonic() - began < limit(0.5)
        time.sleep(0.05)  # a client now and then
    stop.set()
    for thread in threads:
        thread.join()
    assert set(asked) == {200} and len(asked) > 100


@fault("K05", "orders that name nobody, too much, or are asked for twice", rounds=1, full=20)
def test_orders_that_are_wrong_tell_nobody(case, folder):
    start(case, folder)
    bodies = [{}, {"waves": []}, {"waves": [[]]}, {"waves": [[""]]}, {"waves": "*"},
              {"waves": [["*"]], "grace": "-1s"}, {"waves": [["*"]], "grace": "1"},
              {"waves": [["*"]], "dry_run": "no"}, {"waves": [["*"]], "typo": 1},
              {"waves": [["nobody-*"]], "dry_run": True}, {"waves": [["*"]], "dry_run": True},
              [["*"]], "*", None, 130, b"", b"{", b'{"waves": [["*"]]', b'{"waves": [["*"]]}}',
              b'{"waves": [["*"]], "waves": [["a"]]}', b'{"waves": [["\xff"]]}', b"\0"]
    for _ in range(case.rounds):
        for body in bodies:
            if not isinstance(body, (bytes, dict)):
                body = str(body).encode()
            status = case.control.request("POST", "/v1/shutdown", body).status
            dry = isinstance(body, dict) and body.get("dry_run") is True
            assert status == (200 if dry else 400), (body, status)
    assert case.control.get("/v1/shutdown")[1]["state"] == "none"

    # One that is right tells whom it names; the same one again tells nobody.
    with Client(case.server) as client:
        client.handshake("victim")
        client.may_be_told = True
        order = {"waves": [["victim"]], "grace": "30s"}
        assert case.control.post("/v1/shutdown", order)[0] == 202
        assert case.control.post("/v1/shutdown", order)[0] == 409
        line = client.recv_line()
        while line == harness.KEEP_ALIVE:
            client.send_line("100")
            line = client.recv_line()
        assert line == harness.SHUTDOWN
        client.send_line("130")
    wait_until(lambda: case.control.get("/v1/shutdown")[1]["state"] == "done", 5, "the order")
