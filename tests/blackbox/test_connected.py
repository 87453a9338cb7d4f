"""A session between its 140 and its end: what a client may say, and what ends it."""

import time

import pytest

from harness import KEEP_ALIVE, Client, Witness, limit, wait_until


@pytest.fixture
def quiet(start_server):
    """A server that asks so rarely that no keep-alive falls into a test."""
    return start_server({"keepalive": {"interval": "10h"}})


def left_with(server, cid, reason):
    row = wait_until(lambda: (row := server.rows()[cid])["cstatus"] == 0 and row,
                     what=f"{cid} disconnected")
    assert row["reason"] == reason


UNASKED = [b"hello", b"", b"130", b"130: shutdown sys", b"140", b"110", b"10", b"1 00", b" 100",
           b"460: server restarting", b"\xff\xfe", b"x" * 255, b"\x1b[2J", b"\r100"]


@pytest.mark.parametrize("line", UNASKED, ids=repr)
def test_unasked_line_is_ignored_eight_times_and_the_ninth_ends_it(quiet, line):
    with Client(quiet).handshake("web-1") as client:
        client.send((line + b"\n") * 8)
        client.expect_silence(0.1)
        assert quiet.rows()["web-1"]["cstatus"] == 1
        client.send(line + b"\n")
        client.expect_refusal(400)
    left_with(quiet, "web-1", "protocol")


@pytest.mark.parametrize("line", [b"100", b"100: keep alive", b"100 ok", b"100abc", b"1000",
                                  b"100" + b"x" * 252])
def test_line_that_begins_with_100_is_an_answer_however_often(quiet, line):
    with Client(quiet).handshake("web-1") as client:
        client.send((line + b"\n") * 50 + (line[:254] + b"\r\n") * 50)
        client.send(b"hello\n" * 8)
        client.expect_silence(0.1)
        assert quiet.rows()["web-1"]["cstatus"] == 1
        client.send(b"hello\n")
        client.expect_refusal(400)


def test_nine_unasked_lines_in_one_segment_with_id_and_password_end_it(quiet):
    with Client(quiet) as client:
        client.send(b"secret\nweb-1\n" + b"hello\n" * 9)
        assert client.outcome("unused") == 140
        client.expect_refusal(400)


def test_unasked_lines_are_counted_from_zero_after_each_keep_alive(start_server):
    server = start_server({"keepalive": {"interval": "200ms"}})
    with Client(server).handshake("web-1") as client:
        for _ in range(5):
            assert client.recv_line() == KEEP_ALIVE
            client.send(b"100\n" + b"hello\n" * 8)
        assert client.recv_line() == KEEP_ALIVE
        client.send(b"hello\n" * 9)
        client.expect_refusal(400)


@pytest.mark.parametrize("size,stays", [(255, True), (256, True), (257, False)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_long_line_when_connected_ends_it_only_over_the_limit(quiet, size, stays, end):
    with Client(quiet).handshake("web-1") as client:
        client.send(b"x" * (size - len(end)) + end)
        if stays:
            client.expect_silence(0.1)
        else:
            client.expect_refusal(400)
            left_with(quiet, "web-1", "protocol")


@pytest.mark.parametrize("data", [b"\0", b"\0\n", b"100\0\n", b"10\0" + b"x" * 50 + b"\n"])
def test_nul_when_connected_ends_it(quiet, data):
    with Client(quiet).handshake("web-1") as client:
        client.send(data)
        client.expect_refusal(400)
    left_with(quiet, "web-1", "protocol")


def test_line_in_pieces_over_several_keep_alives_is_one_line(start_server):
    server = start_server({"keepalive": {"interval": "100ms", "require_reply": "no"}})
    with Client(server).handshake("web-1") as client:
        for byte in b"100: here\n":
            client.send(bytes([byte]))
            assert client.recv_line() == KEEP_ALIVE
        assert server.rows()["web-1"]["cstatus"] == 1


def test_client_that_leaves_is_recorded_as_left(quiet):
    Client(quiet).handshake("web-1").close()
    left_with(quiet, "web-1", "left")


def test_client_that_resets_is_recorded_as_reset(quiet):
    Client(quiet).handshake("web-1").rst()
    left_with(quiet, "web-1", "reset")


def test_flood_of_answers_ends_nothing_and_delays_nobody(start_server):
    server = start_server({"keepalive": {"interval": "100ms", "require_reply": "yes"}})
    with Witness(server) as witness, Client(server).handshake("loud") as client:
        end = time.monotonic() + 1.0
        client.sock.settimeout(limit(5))
        while time.monotonic() < end:
            client.send(b"100\n" * 2500)
        witness.wait_asked(3)
        witness.check(max_gap=1.0)
        assert server.rows()["loud"]["cstatus"] == 1
        with Client(server) as other:
            other.handshake("newcomer")
