"""Every request of docs/control.md and every error of it, on the unix socket. What orders do is
test_orders.py's; who may ask over TCP, test_control_access.py's."""

import concurrent.futures
import contextlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import pytest

from control import Control
from harness import KEEP_ALIVE, Client, Swarm, Witness, limit, wait_until

RECORD = ["sid", "cid", "cip", "cport", "cstatus", "since", "last_seen", "rtt_ms", "reason", "node",
          "credential"]


@pytest.fixture
def control(server):
    return Control(server)


def ids(answer):
    status, page = answer
    assert status == 200, page
    return [record["cid"] for record in page["clients"]]


def refused(answer, status, *words):
    """The answer is this error, and says these words."""
    assert answer[0] == status, answer
    for word in words:
        assert word in answer[1]["error"], answer


def connect_once(server, cids):
    """Makes clients known, which are then disconnected."""
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(cids)
        swarm.settle()
        assert swarm.count("connected") == len(cids)
    wait_until(lambda: not any(row["cstatus"] for cid, row in server.rows().items() if cid in cids))


# --- /v1/status ---------------------------------------------------------------------------------


def test_status_says_how_things_are(start_server):
    server = start_server({"server": {"max_clients": 7},
                           "keepalive": {"interval": "1500ms", "misses": 2},
                           "registry": {"store": "memory"}})
    control = Control(server)
    status, answer = control.get("/v1/status")
    assert status == 200
    version = subprocess.run([server.proc.args[0], "--version"], capture_output=True,
                             text=True).stdout
    assert answer.pop("version") == version.split()[1]
    assert answer.pop("uptime_s") in range(int(limit(5)))
    assert answer.pop("node") == socket.gethostname()
    assert answer == {
        "ready": True, "connected": 0, "registered": 0, "pending": 0, "max_clients": 7,
        "penalised_sources": 0,
        "store": {"kind": "memory", "healthy": True},
        "keepalive": {"interval_s": 1.5, "misses": 2, "dead_client_max_s": 4.5}, "shutdown": "none"}


def test_status_counts_connected_registered_and_pending(control, server):
    def counts():
        answer = control.get("/v1/status")[1]
        return answer["connected"], answer["registered"], answer["pending"]

    with Client(server) as first, Client(server) as second, Client(server) as third:
        first.handshake("web-1")
        second.handshake("web-2")
        third.authenticate()
        assert counts() == (2, 2, 1)
        second.close()
        wait_until(lambda: counts() == (1, 2, 1), what="a client less")
        third.close()
        wait_until(lambda: counts() == (1, 2, 0), what="nobody pending")
        assert control.delete("/v1/clients/web-2") == (200, {"forgotten": "web-2"})
        assert counts() == (1, 1, 0)


# --- one client ---------------------------------------------------------------------------------


def test_record_is_that_of_the_table_and_lives(start_server):
    server = start_server({"keepalive": {"interval": "100ms"}})
    control = Control(server)
    began = int(time.time())
    with Client(server).handshake("web-1") as client:
        record = control.client("web-1")
        assert list(record) == RECORD
        row = server.rows()["web-1"]
        for key in ("sid", "cid", "cip", "cport", "since", "reason", "node"):
            assert record[key] == row[key], key
        assert (record["cip"], record["cport"]) == ("127.0.0.1", client.port)
        assert record["cstatus"] is True and record["reason"] == "" and record["rtt_ms"] is None
        assert began <= record["since"] <= record["last_seen"] <= time.time()
        # A round trip is there as soon as it was made, and when it was heard moves with it.
        client.expect(KEEP_ALIVE)
        time.sleep(0.03)
        client.send_line("100")
        rtt = wait_until(lambda: control.client("web-1")["rtt_ms"], what="a round trip")
        assert 30 <= rtt < 30 + limit(5000)
        end = time.monotonic() + 5
        while control.client("web-1")["last_seen"] == record["last_seen"]:
            client.answer(time.monotonic() + limit(2), rounds=1)
            assert time.monotonic() < limit(end)
        assert control.client("web-1")["since"] == record["since"]
    wait_until(lambda: not control.client("web-1")["cstatus"])
    left = control.client("web-1")
    assert (left["reason"], left["sid"], left["cport"]) == ("left", record["sid"], record["cport"])
    assert record["since"] <= left["since"] == left["last_seen"]


def test_record_of_a_client_on_a_unix_socket(start_server, folder):
    server = start_server({"server": {"listen": f"unix:{folder}/wire.sock"}})
    with Client(folder / "wire.sock").handshake("a:b@c_d.e-f"):
        record = Control(server).client("a%3Ab%40c_d.e-f")
        assert (record["cid"], record["cip"], record["cport"]) == ("a:b@c_d.e-f", "unix", 0)


@pytest.mark.parametrize("cid", ["web-1", ".", ".."])
def test_id_with_an_equals_sign_before_it(control, server, cid):
    """Browsers take dots alone for the way up: what they send has to look like something else."""
    with Client(server).handshake(cid) as client:
        assert control.client(f"={cid}")["cid"] == cid
        assert control.post(f"/v1/clients/={cid}/disconnect") == (200, {"disconnected": cid})
        client.expect_refusal(430, after_keep_alives=True)
    assert control.request("DELETE", f"/v1/clients/={cid}").json == {"forgotten": cid}
    for wrong in ("=", f"=={cid}", f"{cid}="):
        assert control.request("GET", f"/v1/clients/{wrong}").status == 404


@pytest.mark.parametrize("method,path", [("GET", ""), ("DELETE", ""), ("POST", "/ping"),
                                         ("POST", "/disconnect")])
def test_client_that_is_not_known_is_404(control, server, method, path):
    with Client(server) as client:
        client.authenticate()  # and says nothing: it is known to nobody yet
        for cid in ("web-1", "..", ".", "%2e%2e", "%zz", "%", "a" * 64, "a%20b", "%ff%fe", "*"):
            answer = control.request(method, f"/v1/clients/{cid}{path}")
            assert answer.status == 404 and answer.json["error"], (cid, answer.body)
        for cid in ("", "a" * 65, "a%2Fb"):
            assert control.request(method, f"/v1/clients/{cid}{path}").status == 404
        for cid in ("%00", "web%00-1"):
            assert control.request(method, f"/v1/clients/{cid}{path}").status == 400
    assert control.get("/v1/status")[1]["registered"] == 0


def test_garbage_behind_a_percent_is_no_ones_id(control, server):
    with Client(server).handshake("web-1") as client:
        for cid in ("web-1%", "web-1%0", "web%2d", "web-1%00", "web-1%0a", "web-1%20", "web-1%zz"):
            for method, path in (("DELETE", ""), ("POST", "/disconnect"), ("POST", "/ping")):
                assert control.request(method, f"/v1/clients/{cid}{path}").status in (400, 404)
        client.expect_silence(0.05)
        assert control.client("web%2D1")["cid"] == "web-1"


# --- disconnect and forget ----------------------------------------------------------------------


def test_disconnect_ends_the_session_with_430(control, server):
    with Client(server).handshake("web-1") as client, Client(server).handshake("web-2") as other:
        assert control.post("/v1/clients/web-1/disconnect") == (200, {"disconnected": "web-1"})
        client.expect_refusal(430)
        record = control.client("web-1")
        assert (record["cstatus"], record["reason"]) == (False, "operator")
        refused(control.post("/v1/clients/web-1/disconnect"), 409, "web-1")
        other.expect_silence(0.05)
        with Client(server).handshake("web-1"):
            assert control.client("web-1")["cstatus"] is True


def test_forget_frees_the_sid_and_only_of_those_who_are_gone(control, server):
    with Client(server).handshake("web-1") as client, Client(server).handshake("web-2"):
        assert control.client("web-1")["sid"] == 1
        refused(control.delete("/v1/clients/web-1"), 409, "web-1")
        client.expect_silence(0.05)
        client.close()
        wait_until(lambda: not control.client("web-1")["cstatus"])
        assert control.delete("/v1/clients/web-1") == (200, {"forgotten": "web-1"})
        refused(control.delete("/v1/clients/web-1"), 404, "web-1")
        refused(control.get("/v1/clients/web-1"), 404)
        assert ids(control.get("/v1/clients")) == ["web-2"]
        wait_until(lambda: set(server.rows()) == {"web-2"})
        with Client(server).handshake("web-3"):
            assert control.client("web-3")["sid"] == 1
            assert server.rows()["web-3"]["sid"] == 1


# --- ping ---------------------------------------------------------------------------------------


def test_ping_takes_as_long_as_the_client(control, server):
    with Client(server).handshake("web-1") as client, control.raw() as asking:
        asking.ask("POST /v1/clients/web-1/ping", body=b"")
        client.expect(KEEP_ALIVE)
        time.sleep(0.05)
        client.send_line("100")
        answer = asking.answer()
        assert answer.status == 200 and set(answer.json) == {"rtt_ms"}
        assert 50 <= answer.json["rtt_ms"] < 50 + limit(2000)
        # The same connection may go on.
        asking.ask("POST /v1/clients/web-1/ping", body=b"{}")
        client.expect(KEEP_ALIVE)
        client.send_line("100")
        assert asking.answer().status == 200


def test_each_of_several_pings_gets_its_own_answer(control, server):
    with Client(server).handshake("web-1") as client, contextlib.ExitStack() as stack:
        asking = [stack.enter_context(control.raw()) for _ in range(5)]
        for raw in asking:
            raw.ask("POST /v1/clients/web-1/ping", body=b"")
            client.expect(KEEP_ALIVE)
        client.send(b"100\n100\n")
        assert [raw.answer().status for raw in asking[:2]] == [200, 200]
        with pytest.raises(TimeoutError):
            asking[2].fill(0.1)
        client.send(b"100\n100\n100\n")
        times = [raw.answer().json["rtt_ms"] for raw in asking[2:]]
        assert min(times) >= 100


def test_ping_of_who_is_not_connected_is_409(control, server):
    connect_once(server, ["web-1"])
    refused(control.post("/v1/clients/web-1/ping"), 409, "web-1")


@pytest.mark.parametrize("leave", [Client.close, Client.rst, lambda client: client.send(b"\0\n")],
                         ids=["fin", "rst", "protocol-error"])
def test_ping_of_who_leaves_meanwhile_is_409(control, server, leave):
    with Client(server).handshake("web-1") as client, control.raw() as one, control.raw() as two:
        for raw in (one, two):
            raw.ask("POST /v1/clients/web-1/ping", body=b"")
            client.expect(KEEP_ALIVE)
        leave(client)
        for raw in (one, two):
            answer = raw.answer()
            assert answer.status == 409 and "web-1" in answer.json["error"]


def test_whoever_pings_may_leave_before_the_answer(control, server):
    with Client(server).handshake("web-1") as client:
        for _ in range(20):
            with control.raw() as asking:
                asking.ask("POST /v1/clients/web-1/ping", body=b"")
                client.expect(KEEP_ALIVE)
            client.send_line("100")
        with control.raw() as asking:
            asking.ask("POST /v1/clients/web-1/ping", body=b"")
            client.expect(KEEP_ALIVE)
            client.send_line("100")
            assert asking.answer().status == 200


# --- reload -------------------------------------------------------------------------------------


def test_reload_says_what_needs_a_restart(control, server):
    assert control.post("/v1/reload") == (200, {"reloaded": True, "restart_needed": []})
    server.rewrite_ini({"auth": {"password": "next"}, "keepalive": {"interval": "1h"}})
    assert control.post("/v1/reload", {}) == (200, {"reloaded": True, "restart_needed": []})
    assert control.get("/v1/status")[1]["keepalive"]["interval_s"] == 3600
    with Client(server) as client:
        assert client.outcome("web-1", "secret") == 410
    server.rewrite_ini({"server": {"listen": "127.0.0.1:1", "max_clients": 5},
                        "control": {"socket": "other.sock"}})
    status, answer = control.post("/v1/reload")
    assert (status, answer["reloaded"]) == (200, True)
    assert sorted(answer["restart_needed"]) == ["control.socket", "server.listen"]
    assert control.get("/v1/status")[1]["max_clients"] == 5


def test_reload_of_a_broken_file_has_all_its_errors_and_changes_nothing(control, server):
    before = control.get("/v1/status")[1]
    server.rewrite_ini(ini="[server]\nlisten = 127.0.0.1:0\nmax_clients = 5\ncolour = blue\n"
                           "[auth]\npassword = next\n[keepalive]\ninterval = soon\n")
    status, answer = control.post("/v1/reload")
    assert status == 409 and set(answer) == {"error", "errors"}
    assert len(answer["errors"]) == 2 and answer["error"] in answer["errors"]
    for line, words in (4, ["colour"]), (8, ["interval", "soon"]):
        assert any(re.search(rf"cliser\.ini:{line}: ", error)
                   and all(word in error for word in words)
                   for error in answer["errors"]), answer
    after = control.get("/v1/status")[1]
    assert {**after, "uptime_s": 0} == {**before, "uptime_s": 0}
    with Client(server) as client:
        assert client.outcome("web-1", "secret") == 140
    server.ini.unlink()
    status, answer = control.post("/v1/reload")
    assert status == 409 and "cliser.ini" in answer["error"]


# --- metrics, healthz, readyz -------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads_and_move(control, server):
    answer = control.request("GET", "/metrics")
    assert answer.status == 200
    assert answer.header("content-type").startswith("text/plain; version=0.0.4")
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=answer.body,
                                 capture_output=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    before = control.metrics()
    with Client(server).handshake("web-1") as client, control.events():
        control.get("/v1/nothing")
        with Client(server) as other:
            assert other.outcome("web-2", "wrong") == 410
        after = control.metrics()

        def moved(series):
            return after[series] - before[series]

        assert moved('cliser_clients{status="connected"}') == 1
        assert moved('cliser_refusals_total{code="410"}') == 1
        assert moved("cliser_connections_accepted_total") == 2
        assert moved("cliser_event_subscribers") == 1
        assert moved('cliser_control_requests_total{code="4xx"}') == 1
        assert moved('cliser_control_requests_total{code="2xx"}') == 2
        assert after["cliser_ready"] == 1
        text = control.request("GET", "/metrics").body.decode()
        assert "web-1" not in text and str(client.port) not in text.replace("\n", " ").split()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_of_a_healthy_server(control, path):
    assert control.get(path) == (200, {"ok": True} if path == "/healthz" else {"ready": True})


def test_not_ready_when_max_clients_are_connected(start_server):
    server = start_server({"server": {"max_clients": 1}})
    control = Control(server)
    with Client(server).handshake("web-1"):
        status, answer = control.get("/readyz")
        assert (status, answer["ready"]) == (503, False) and "room" in answer["why"]
        assert control.get("/healthz") == (200, {"ok": True})
        assert control.get("/v1/status")[1]["ready"] is False
        assert control.metrics()["cliser_ready"] == 0
    wait_until(lambda: control.get("/readyz") == (200, {"ready": True}))


def test_not_ready_while_the_store_fails(start_server):
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    with Witness(server) as witness:
        old = server.set_limit(resource.RLIMIT_FSIZE, 1)
        with Client(server) as client:
            assert client.outcome("web-1") == 451
        status, answer = control.get("/readyz")
        assert (status, answer["ready"]) == (503, False) and "registry" in answer["why"]
        status, answer = control.get("/v1/status")
        assert (answer["ready"], answer["store"]) == (False, {"kind": "sqlite", "healthy": False})
        assert control.get("/healthz") == (200, {"ok": True})
        refused(control.get("/v1/clients/web-1"), 404)
        witness.check(max_gap=1.0)
        server.set_limit(resource.RLIMIT_FSIZE, old)
        wait_until(lambda: control.get("/readyz") == (200, {"ready": True}), 10)


def test_not_ready_while_draining(start_server):
    server = start_server({"server": {"drain": "30s"}})
    control = Control(server)
    with Swarm(server) as swarm:
        swarm.add_all(f"web-{n}" for n in range(20))
        swarm.settle()
        server.signal(signal.SIGQUIT)
        server.wait_log(r"\bdraining\b")
        status, answer = control.get("/readyz")
        assert (status, answer["ready"]) == (503, False) and "stopping" in answer["why"]
        assert control.get("/v1/status")[1]["ready"] is False
        assert control.get("/healthz")[0] == 200
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


# --- shutdown orders that are none --------------------------------------------------------------

ORDERS = [
    (None, ["JSON"]), (b"", ["JSON"]), (b"{", ["JSON"]), (b"[]", ["object"]), (b"null", []),
    (b'"waves"', []), (b"{}", ["waves"]), (b'{"waves":[["a"]]}x', ["JSON"]),
    (b'{"waves":[["a"]],"waves":[["b"]]}', ["waves"]), (b'{"waves":[["a\xff"]]}', ["JSON"]),
    (b'{"waves":[["a\\u0000b"]]}', []), (b"[" * 100000, []), (b'{"waves":' * 5000, []),
    ({"waves": []}, ["waves"]), ({"waves": [[]]}, ["waves[0]"]), ({"waves": ["a"]}, ["waves[0]"]),
    ({"waves": {"a": 1}}, ["waves"]), ({"waves": [["a"], [1]]}, ["waves[1][0]"]),
    ({"waves": [["a", None]]}, ["waves[0][1]"]), ({"waves": [["a", ""]]}, ["waves[0][1]"]),
    ({"waves": [["a b"]]}, ["waves[0][0]"]), ({"waves": [["a,b"]]}, ["waves[0][0]"]),
    ({"waves": [["x" * 65]]}, ["waves[0][0]"]), ({"waves": [["*" * 129]]}, ["waves[0][0]"]),
    ({"waves": [["a"]] * 65}, ["64"]), ({"waves": [["*"] * 257]}, ["256"]),
    ({"waves": [["a"]], "colour": "blue"}, ["colour", "grace"]),
    ({"waves": [["a"]], "Grace": "1s"}, ["Grace"]), ({"waves": [["a"]], "grace": 60}, ["grace"]),
    ({"waves": [["a"]], "grace": "60"}, ["grace"]), ({"waves": [["a"]], "grace": "-1s"}, ["grace"]),
    ({"waves": [["a"]], "grace": "2d"}, ["grace", "1d"]),
    ({"waves": [["a"]], "hold": "31d"}, ["hold", "30d"]),
    ({"waves": [["a"]], "hold": ["1s"]}, ["hold"]),
    ({"waves": [["a"]], "dry_run": "no"}, ["dry_run"]),
    ({"waves": [["a"]], "dry_run": 0}, ["dry_run"]),
    ({"waves": [["a"]], "dry_run": None}, ["dry_run"]),
]


def test_order_that_makes_no_sense_is_400_and_tells_nobody(control, server):
    with Client(server).handshake("a") as client:
        for body, words in ORDERS:
            answer = control.request("POST", "/v1/shutdown", body)
            assert answer.status == 400, (body, answer.body)
            for word in words:
                assert word in answer.json["error"], (body, answer.json)
        client.expect_silence(0.05)
        assert control.get("/v1/shutdown") == (200, {"state": "none"})
        refused(control.delete("/v1/shutdown"), 404)
        assert control.get("/v1/shutdown/targets") == (200, {"targets": [], "next": None})
        for query in ("state=up", "state=", "wave=0", "wave=65", "wave=x", "limit=0",
                      "status=connected",
                      "match=*", "wave=1&wave=1"):
            refused(control.get(f"/v1/shutdown/targets?{query}"), 400)


# --- the contract's own times, all at once ------------------------------------------------------


def test_what_the_contract_lets_wait(start_server):
    """
    5 s for a ping, 10 s for a request to be there, 15 s for a comment in a stream, 30 s for a
    reader that takes nothing: at the same time, and the clients go on being asked meanwhile.
    """
    server = start_server({"keepalive": {"interval": "200ms", "require_reply": "no"}})
    quiet = start_server()
    control = Control(server)

    def ping_that_nobody_answers():
        began = time.monotonic()
        answer = control.request("POST", "/v1/clients/silent/ping", timeout=20)
        assert answer.status == 504 and "silent" in answer.json["error"]
        assert 4.9 <= time.monotonic() - began <= 5 + limit(1)

    def pings_that_are_answered_once(client):
        """Two questions came in one segment, and the client takes them for one: both were heard."""
        with Control(quiet).raw() as one, Control(quiet).raw() as two:
            for raw in (one, two):
                raw.ask("POST /v1/clients/sloppy/ping", body=b"")
            for _ in range(2):
                client.expect(KEEP_ALIVE)
            client.send_line("100")
            for raw in (one, two):
                answer = raw.answer(timeout=20)
                assert answer.status == 200 and answer.json["rtt_ms"] < limit(1000)

    def request_that_is_never_whole(begin, drip=b""):
        with control.raw() as raw:
            began = time.monotonic()
            raw.send(begin)
            while time.monotonic() < began + limit(20):
                try:
                    raw.send(drip)
                    if not raw.fill(0.25):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert raw.buffer == b""
            assert 9.9 <= time.monotonic() - began <= 11.5 + limit(1)

    def stream_in_which_nothing_happens():
        with Control(quiet).events() as stream:
            began = time.monotonic()
            stream.expect_silence(16 + limit(0.5))
            assert len(stream.comments) == 2, "one as it began, and one after 15 s"
            assert 14.9 <= stream.comments[1] - began <= 16 + limit(0.5)

    def stream_that_nobody_reads():
        for number in range(2):
            connect_once(server, [f"many-{number}-{n}" for n in range(1000)])
        with control.events(last_id=0, rcvbuf=4096):
            began = time.monotonic()
            assert control.metrics()["cliser_event_subscribers"] == 1
            wait_until(lambda: control.metrics()["cliser_event_subscribers"] == 0, 30 + limit(5))
            assert 29 <= time.monotonic() - began <= 32 + limit(1)

    line = b"POST /v1/clients/silent/disconnect HTTP/1.1\r\nHost: localhost\r\n"
    with Client(quiet).handshake("sloppy") as sloppy, Client(server).handshake("silent"), \
            Witness(server) as witness, concurrent.futures.ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(ping_that_nobody_answers) for _ in range(3)]
        jobs += [pool.submit(pings_that_are_answered_once, sloppy),
                 pool.submit(stream_in_which_nothing_happens),
                 pool.submit(stream_that_nobody_reads)]
        jobs += [pool.submit(request_that_is_never_whole, *arguments) for arguments in (
            (b"",), (b"GET",), (line,), (line, b"X"), (b"GET /v1/status HTTP/1.1\r\nX: ", b"x"),
            (line + b"Content-Length: 1000\r\n\r\n", b" "),
            (line + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"))]
        for job in jobs:
            job.result()
        witness.check(max_gap=1.0)
        assert control.client("silent")["cstatus"] is True, "half a request does nothing"
