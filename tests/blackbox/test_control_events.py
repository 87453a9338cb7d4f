"""GET /v1/events: what is told, to whom, and what becomes of those who do not listen."""

import contextlib
import signal
import socket
import time

import pytest

from control import Control, RefusedStream, http_config
from harness import (ASK_PASSWORD, Client, Swarm, Witness, sanitized, wait_until)

KEPT = 4096
STREAMS = 32


@pytest.fixture
def control(server):
    return Control(server)


def come_and_go(server, cid="web-1"):
    with Client(server).handshake(cid) as client:
        return client.port


def many_events(server, count, prefix="many"):
    """So many connected clients, who stay until the end of the block."""
    swarm = Swarm(server, pipelined=True)
    swarm.add_all(f"{prefix}-{n}" for n in range(count))
    swarm.settle(30)
    assert swarm.count("connected") == count
    return swarm


# --- what is told -------------------------------------------------------------------------------


def test_coming_and_going_is_told(control, server):
    with control.events() as stream:
        began = time.time()
        with Client(server).handshake("web-1") as client:
            event = stream.expect("connected", cid="web-1", sid=1, cip="127.0.0.1",
                                  cport=client.port)
            assert set(event.data) == {"time", "cid", "sid", "cip", "cport", "credential"}
            assert event.data["credential"] == "auth"
            assert began - 0.01 <= event.data["time"] <= time.time() + 0.01
            port = client.port
        event = stream.expect("disconnected", cid="web-1", sid=1, cip="127.0.0.1", cport=port,
                              reason="left")
        assert set(event.data) == {"time", "cid", "sid", "cip", "cport", "reason"}
        with Client(server).handshake("web-1") as client:
            first = stream.expect("connected", cid="web-1", sid=1, cport=client.port)
            assert first.id == event.id + 1
            control.post("/v1/clients/web-1/disconnect")
            stream.expect("disconnected", cid="web-1", reason="operator")


def test_refusals_are_told(control, server):
    def refusal(cid, reason, code, port):
        event = stream.expect("refused", cid=cid, reason=reason, code=code, cip="127.0.0.1",
                              cport=port)
        assert set(event.data) == {"time", "cid", "cip", "cport", "reason", "code"}

    with control.events() as stream:
        with Client(server) as client:
            assert client.outcome("web-1", "wrong") == 410
            refusal(None, "password", 410, client.port)
        with Client(server) as client:
            assert client.outcome("not an ID") == 420
            refusal(None, "invalid_id", 420, client.port)
        with Client(server) as client:
            client.send(b"\0\n")
            refusal(None, "protocol", 400, client.port)
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            client.close()
        stream.expect("refused", cid=None, reason="left", code=None)
        server.reload({"registry": {"duplicate_id": "reject"}})
        with Client(server).handshake("web-1"), Client(server) as second:
            stream.expect("connected", cid="web-1")
            assert second.outcome("web-1") == 421
            refusal("web-1", "duplicate", 421, second.port)


def test_what_an_order_does_is_told(control, server):
    with control.events() as stream, Client(server).handshake("web-1") as client:
        stream.expect("connected", cid="web-1")
        status, order = control.post("/v1/shutdown",
                                     {"waves": [["nobody"], ["web-1"]], "hold": "10m"})
        assert status == 202
        number = order["id"]
        for what, wave in (("started", None), ("wave_started", 1), ("wave_ended", 1),
                           ("wave_started", 2)):
            event = stream.expect("shutdown", order=number, what=what, wave=wave)
            assert set(event.data) == {"time", "order", "what"} | ({"wave"} if wave else set())
        event = stream.expect("shutdown", order=number, what="told", wave=2, cid="web-1")
        assert set(event.data) == {"time", "order", "what", "wave", "cid"}
        assert client.sock.recv(100)[:4] == b"130:"
        client.send_line("130")
        stream.expect("shutdown", order=number, what="acknowledged", wave=2, cid="web-1")
        client.close()
        stream.expect("disconnected", cid="web-1", reason="shutdown")
        stream.expect("shutdown", order=number, what="wave_ended", wave=2)
        stream.expect("shutdown", order=number, what="holding")
        control.delete("/v1/shutdown")
        stream.expect("shutdown", order=number, what="cancelled")
        control.post("/v1/shutdown", {"waves": [["nobody"]]})
        for what in ("started", "wave_started", "wave_ended", "done"):
            stream.expect("shutdown", order=number + 1, what=what)
        stream.expect_silence(0.1)


def test_ids_count_and_each_stream_begins_with_what_happens_next(control, server):
    come_and_go(server)
    with control.events() as first:
        come_and_go(server, "web-2")
        heard = [first.next(), first.next()]
        with control.events() as second:
            second.expect_silence(0.1)
            come_and_go(server, "web-3")
            heard += [first.next(), first.next()]
            also = [second.next(), second.next()]
    assert [event.id for event in heard] == list(range(heard[0].id, heard[0].id + 4))
    assert [(event.id, event.data) for event in also] == [(event.id, event.data)
                                                          for event in heard[2:]]


# --- going on -----------------------------------------------------------------------------------


def test_last_event_id_goes_on_behind_it(control, server):
    with control.events() as stream:
        come_and_go(server)
        seen = stream.next().id
    come_and_go(server, "web-2")
    with control.events(last_id=seen) as stream:
        assert stream.expect("disconnected", cid="web-1").id == seen + 1
        stream.expect("connected", cid="web-2")
        last = stream.expect("disconnected", cid="web-2").id
        stream.expect_silence(0.05)
    with control.events(last_id=last) as stream:
        stream.expect_silence(0.05)
        come_and_go(server, "web-3")
        assert stream.expect("connected", cid="web-3").id == last + 1
    first = seen - 1
    for other in (0, 4711, 10 ** 18):  # of another life of the server: nobody knows how many
        with control.events(last_id=other) as stream:
            assert stream.expect("missed", missed=None).id == first
            assert [stream.next().id for _ in range(6)] == list(range(seen, seen + 6))


def test_last_event_id_of_the_server_before_says_that_some_may_be_missed(start_server):
    server = start_server()
    with Control(server).events() as stream:
        come_and_go(server)
        seen = stream.next().id
    server.stop()
    server = start_server(folder=server.folder)
    come_and_go(server, "web-2")
    with Control(server).events(last_id=seen) as stream:
        assert stream.expect("missed", missed=None).id > seen
        stream.expect("connected", cid="web-2")


@pytest.mark.parametrize("last_id", ["", "x", "-1", "1.5", "99999999999999999999999", "1, 2"])
def test_last_event_id_that_is_none_is_400(control, last_id):
    with pytest.raises(RefusedStream) as refused:
        control.events(last_id=last_id)
    answer = refused.value.answer
    assert answer.status == 400 and "Last-Event-ID" in answer.json["error"]


def test_what_is_older_than_the_ring_is_counted(control, server):
    with control.events() as stream:
        come_and_go(server)
        seen = stream.next().id
    rounds, clients = 4, KEPT // 8 + 25
    for _ in range(rounds):
        many_events(server, clients).close()
    wait_until(lambda: control.get("/v1/status")[1]["connected"] == 0)
    happened = seen + 1 + rounds * clients * 2
    with control.events(last_id=seen) as stream:
        missed = stream.expect("missed")
        assert missed.data == {"missed": happened - KEPT - seen} and missed.id == happened - KEPT
        heard = [stream.next().id for _ in range(KEPT)]
        assert heard == list(range(missed.id + 1, happened + 1))
        stream.expect_silence(0.05)
    with control.events(last_id=happened - KEPT) as stream:
        assert stream.next().id == happened - KEPT + 1


# --- those who do not listen --------------------------------------------------------------------


def test_reader_that_does_not_read_costs_nothing_and_hears_what_it_missed(start_server):
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    with Witness(server) as witness, contextlib.ExitStack() as stack:
        sleepers = [stack.enter_context(control.events(rcvbuf=4096)) for _ in range(10)]
        listener = stack.enter_context(control.events())
        many_events(server, 500).close()
        before = server.rss_kib()
        heard = 0
        for turn in range(16):
            many_events(server, 500, f"turn-{turn}").close()
        while True:
            event = listener.next()
            heard += 1
            if event.kind == "missed":
                heard += event.data["missed"] - 1
            if heard >= 2 * 500 * 17:
                break
        # 1.5 MiB of texts for each of them have been made, or would have been.
        if not sanitized():
            assert server.rss_kib() - before < 8 * 1024
        # Whoever wakes up hears that something was lost, and goes on with what was kept.
        first = sleepers[0].wait("missed", timeout=20)
        assert first.data["missed"] > 0
        ids = [first.id] + [sleepers[0].next().id for _ in range(KEPT // 2)]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert control.get("/v1/status")[0] == 200
        witness.check(max_gap=1.5)


def test_33rd_stream_is_503_and_its_place_is_free_when_one_leaves(control, server):
    before = server.fds()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(control.events()) for _ in range(STREAMS)]
        for _ in range(2):
            with pytest.raises(RefusedStream) as refused:
                control.events()
            answer = refused.value.answer
            assert answer.status == 503 and "stream" in answer.json["error"]
        assert control.metrics()["cliser_event_subscribers"] == STREAMS
        come_and_go(server)
        for stream in streams:
            stream.expect("connected", cid="web-1")
            stream.expect("disconnected", cid="web-1")
        streams[0].close()

        def has_room():
            with contextlib.suppress(RefusedStream):
                control.events().close()
                return True

        wait_until(has_room, what="room for another stream")
    wait_until(lambda: control.metrics()["cliser_event_subscribers"] == 0)
    wait_until(lambda: server.fds() <= before)


def test_port_has_streams_of_its_own(start_server, folder):
    server = start_server(http_config(folder))
    with contextlib.ExitStack() as stack:
        for _ in range(STREAMS):
            stack.enter_context(Control(server).events())
        stream = stack.enter_context(Control(server, tcp=True).events())
        come_and_go(server)
        stream.expect("connected", cid="web-1")


def test_streams_that_are_reset_or_talk_on_do_no_harm(start_server):
    """Whoever sends on upstream is not read; whoever resets is gone at once."""
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    with Witness(server) as witness:
        before, memory = server.fds(), server.rss_kib()
        for _ in range(40):
            with control.events() as stream:
                stream.raw.sock.shutdown(socket.SHUT_RDWR)
        with control.events() as stream:
            stream.raw.sock.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                while sent < 64 << 20:
                    sent += stream.raw.sock.send(b"GET / HTTP/1.1\r\n\r\n" * 4096)
            assert control.get("/v1/status")[0] == 200
            if not sanitized():
                assert server.rss_kib() - memory < 4 * 1024
        wait_until(lambda: server.fds() <= before)
        witness.check(max_gap=1.0)


def test_streams_end_with_the_server(start_server):
    server = start_server()
    with Control(server).events() as stream, Client(server).handshake("web-1"):
        stream.expect("connected")
        server.signal(signal.SIGTERM)
        with pytest.raises((EOFError, ConnectionResetError)):
            while True:
                stream.next()
        assert server.wait_exit() == 0
