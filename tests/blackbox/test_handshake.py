"""From the first byte to 140: lines, segments, grammars, the one deadline, what is recorded."""

import os
import re
import socket
import time

import pytest

from harness import (ASK_ID, ASK_PASSWORD, CONNECTED, REFUSALS, Client, SCALE, limit, rows,
                     sanitized, wait_until, write_secret)

ENDS = {"lf": b"\n", "crlf": b"\r\n"}
BOTH_ENDS = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())


def test_handshake_step_by_step_is_exact_to_the_byte(server):
    client = Client(server)
    received = b""
    for answer in (b"secret\n", b"web-1\n", b""):
        while not received.endswith(b"\n"):
            received += client.sock.recv(4096)
        client.send(answer)
        if answer:
            received += client.sock.recv(4096)
    assert received == b"110: qual a senha\r\n120: qual o ID\r\n140: Connected\r\n"
    client.expect_silence(0.1)


@BOTH_ENDS
def test_answers_ending_in_either_way_are_taken(server, end):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send_line("secret", end)
        client.expect(ASK_ID)
        client.send_line("web-1", end)
        client.expect(CONNECTED)
    assert "web-1" in server.rows()


@BOTH_ENDS
def test_answers_byte_by_byte_are_taken(server, end):
    with Client(server) as client:
        for byte in b"secret" + end + b"web-1" + end:
            client.send(bytes([byte]))
            time.sleep(0.001)
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)
    assert set(server.rows()) == {"web-1"}


@pytest.mark.parametrize("whole", [b"secret\nweb-1\n", b"secret\r\nweb-1\r\n",
                                   b"secret\nweb-1\n100\n100\r\n"])
def test_answers_cut_in_two_anywhere_give_the_same_session(start_server, whole):
    server = start_server({"registry": {"duplicate_id": "takeover"}})
    for cut in range(len(whole) + 1):
        with Client(server) as client:
            for part in (whole[:cut], whole[cut:]):
                if part:
                    client.send(part)
                    time.sleep(0.002)
            for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
                client.expect(line)
            client.expect_silence(0.005)
    assert set(server.rows()) == {"web-1"}


def test_early_answers_before_any_prompt_are_taken_in_order(server):
    with Client(server) as client:
        client.send(b"secret\nearly-1\n100\n")
        for line in (ASK_PASSWORD, ASK_ID, CONNECTED):
            client.expect(line)
        client.expect_silence(0.1)
    with Client(server) as client:
        client.send(b"early-2\nsecret\n")
        client.expect(ASK_PASSWORD)
        client.expect_refusal(410)
    assert set(server.rows()) == {"early-1"}


def test_wrong_password_with_an_id_behind_it_registers_nobody(server):
    with Client(server) as client:
        client.send(b"wrong\nweb-1\n")
        client.expect(ASK_PASSWORD)
        client.expect_refusal(410)
    assert server.rows() == {}


def test_bad_id_with_a_good_one_behind_it_registers_nobody(server):
    with Client(server) as client:
        client.send(b"secret\nbad id\nweb-1\n")
        client.expect(ASK_PASSWORD)
        client.expect(ASK_ID)
        client.expect_refusal(420)
    assert server.rows() == {}


@pytest.mark.parametrize("step,refusal", [("password", 410), ("id", 420)])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("size", [255, 256, 257, 258])
def test_line_at_the_limit_is_judged_by_its_bytes_with_the_end(server, step, refusal, end, size):
    line = b"x" * (size - len(end)) + end
    with Client(server) as client:
        if step == "id":
            client.authenticate()
        else:
            client.expect(ASK_PASSWORD)
        client.send(line)
        client.expect_refusal(refusal if size <= 256 else 400)


@pytest.mark.parametrize("cut", [1, 100, 254, 255])
def test_line_at_the_limit_in_two_segments_is_judged_the_same(server, cut):
    for size, refusal in ((256, 410), (257, 400)):
        line = b"x" * (size - 1) + b"\n"
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            client.send(line[:cut])
            time.sleep(0.01)
            client.send(line[cut:])
            client.expect_refusal(refusal)


def test_256_bytes_without_an_end_are_refused_before_more_come(server):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send(b"x" * 255)
        client.expect_silence(0.1)
        client.send(b"x")
        client.expect_refusal(400)


def test_line_of_a_megabyte_is_refused_and_costs_no_memory(server):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        before = server.rss_kib()
        sent = 0
        client.sock.setblocking(False)
        end = time.monotonic() + limit(2)
        while sent < 1 << 20 and time.monotonic() < end:
            try:
                sent += client.sock.send(b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
        client.expect_refusal(400)
        if not sanitized():
            assert server.rss_kib() - before < 512


@pytest.mark.parametrize("password", [
    "x", "with space", "a" * 127, "b" * 128, "ütf-8 ß", "#no=comment:here", "a;b", "140: Connected",
    "ends in =", "'quoted'", '"quoted"', "100"])
def test_password_of_any_kind_is_taken_and_nothing_like_it(start_server, password):
    server = start_server({"auth": {"password": password}})
    with Client(server) as client:
        client.handshake("web-1", password)
    for other in (password + "x", password + " ", " " + password, password[:-1] or "y",
                  password.swapcase() if password.swapcase() != password else password + "!",
                  password + "\0"):
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            client.send_line(other)
            client.expect_refusal(400 if "\0" in other else 410)


def test_password_longer_than_any_is_wrong_and_not_cut(start_server):
    server = start_server({"auth": {"password": "p" * 128}})
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send_line("p" * 129)
        client.expect_refusal(410)


def test_several_passwords_are_all_taken(start_server, folder):
    write_secret(folder / "third", "from-a-file\nsecond line is ignored\n")
    write_secret(folder / "fourth", "crlf-file\r\n")
    server = start_server({"auth": {"password": ["first", "second"],
                                    "password_file": ["third", "fourth"]}})
    for number, password in enumerate(("first", "second", "from-a-file", "crlf-file")):
        with Client(server) as client:
            client.handshake(f"web-{number}", password)
    for password in ("secret", "second line is ignored", "firstsecond", "first,second", "third"):
        with Client(server) as client:
            assert client.outcome("web-9", password) == 410


def test_id_of_every_allowed_byte_and_length_is_taken(server):
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-"
    for cid in [*alphabet, alphabet[:64], alphabet[-64:], "x" * 64, "x" * 63, "..", "130", "100",
                "web-1.example.org:1111@rack_7"]:
        with Client(server) as client:
            client.handshake(cid)
        assert cid in server.rows()


def test_id_with_any_other_byte_is_refused(server):
    good = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-"
    for byte in range(1, 256):
        if byte in good or byte == 0x0A:
            continue
        for cid in (b"a" + bytes([byte]) + b"b", bytes([byte])):
            if cid == b"\r":
                continue  # an empty line, tested below
            with Client(server) as client:
                client.send(b"secret\n" + cid + b"\n")
                client.expect(ASK_PASSWORD)
                client.expect(ASK_ID)
                client.expect_refusal(420)
    assert server.rows() == {}


@pytest.mark.parametrize("cid", ["x" * 65, "x" * 200, " web", "web ", "web 1", "\tweb", "web\r",
                                 "\u202eweb", "caf\u00e9", '"><script>', "a\\nb", "{}", "*",
                                 "web/1"])
def test_id_outside_the_grammar_is_refused(server, cid):
    with Client(server) as client:
        client.authenticate()
        client.send_line(cid, b"\r\n" if cid.endswith("\r") else b"\n")
        client.expect_refusal(420)
    assert server.rows() == {}


def test_ids_that_differ_in_case_are_two_clients(server):
    first = Client(server).handshake("Web")
    second = Client(server).handshake("web")
    assert {cid: row["cstatus"] for cid, row in server.rows().items()} == {"Web": 1, "web": 1}
    first.close()
    second.close()


@BOTH_ENDS
@pytest.mark.parametrize("step", ["password", "id"])
def test_empty_answer_is_a_protocol_error(server, step, end):
    with Client(server) as client:
        if step == "id":
            client.authenticate()
        else:
            client.expect(ASK_PASSWORD)
        client.send(end)
        client.expect_refusal(400)


@pytest.mark.parametrize("step", ["password", "id"])
@pytest.mark.parametrize("data", [b"\0\n", b"\0", b"secret\0\n", b"se\0cret\n", b"\0secret\n",
                                  b"secret\0web-1\n"])
def test_nul_byte_is_a_protocol_error(server, step, data):
    with Client(server) as client:
        if step == "id":
            client.authenticate()
        else:
            client.expect(ASK_PASSWORD)
        client.send(data)
        client.expect_refusal(400)
    assert server.rows() == {}


def test_bare_cr_is_no_line_end(server):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send(b"secret\r")
        client.expect_silence(0.1)
        client.send(b"\n")
        client.expect(ASK_ID)
        client.send(b"web-1\rweb-2\n")
        client.expect_refusal(420)
    for wrong in (b"se\rcret\n", b"secret\r\r\n", b"\rsecret\n"):
        with Client(server) as client:
            client.expect(ASK_PASSWORD)
            client.send(wrong)
            client.expect_refusal(410)
    assert server.rows() == {}


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(0, 190))


@pytest.mark.parametrize("hello,refusal", [
    (TLS_HELLO, 400),
    (b"GET / HTTP/1.1\r\nHost: cliser\r\n\r\n", 410),
    (b"POST /v1/shutdown HTTP/1.1\r\nContent-Length: 3\r\n\r\n130", 410),
    (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 410),
    (b"*1\r\n$4\r\nPING\r\n", 410),
    (b"\x10\x1a\x00\x04MQTT", 400),
], ids=["tls", "http-get", "http-post", "ssh", "redis", "mqtt"])
def test_other_protocols_are_refused_within_a_second(server, hello, refusal):
    with Client(server) as client:
        client.send(hello)
        client.expect(ASK_PASSWORD)
        client.expect_refusal(refusal, timeout=1)
    assert server.rows() == {}


@pytest.mark.parametrize("line", ["100", "110: qual a senha", "120", "130", "140: Connected",
                                  "460"])
def test_server_code_as_a_password_skips_no_step(server, line):
    with Client(server) as client:
        client.expect(ASK_PASSWORD)
        client.send_line(line)
        client.expect_refusal(410)


# --- the deadline -------------------------------------------------------------------------------

TIMEOUT = 1.0


def assert_on_time(client, start=None):
    """408 came at the deadline: not before, and not much later."""
    waited = time.monotonic() - (start or client.opened)
    assert TIMEOUT - 0.05 <= waited <= TIMEOUT + 0.3 * SCALE, f"408 after {waited:.3f} s"


@pytest.fixture
def hurried(start_server):
    return start_server({"limits": {"handshake_timeout": f"{int(TIMEOUT * 1000)}ms"}})


def test_silent_client_is_timed_out_at_the_deadline(hurried):
    with Client(hurried) as client:
        client.expect(ASK_PASSWORD)
        assert client.recv_line() == REFUSALS[408]
        assert_on_time(client)
        client.expect_close()


def test_client_silent_at_the_id_is_timed_out_at_the_same_deadline(hurried):
    with Client(hurried) as client:
        client.expect(ASK_PASSWORD)
        time.sleep(TIMEOUT * 0.6)
        client.send_line("secret")
        client.expect(ASK_ID)
        assert client.recv_line() == REFUSALS[408]
        assert_on_time(client)
        client.expect_close()


@pytest.mark.parametrize("step", ["password", "id"])
def test_dripping_client_is_timed_out_at_the_same_deadline(hurried, step):
    with Client(hurried) as client:
        if step == "id":
            client.authenticate()
        else:
            client.expect(ASK_PASSWORD)
        line = None
        while line is None and time.monotonic() < client.opened + TIMEOUT + limit(3):
            client.send(b"x")
            try:
                line = client.recv_line(0.05, scaled=False)
            except TimeoutError:
                pass
        assert line == REFUSALS[408]
        assert_on_time(client)
        client.expect_close()


def test_many_silent_clients_are_all_timed_out_on_time(hurried):
    clients = [Client(hurried) for _ in range(50)]
    for client in clients:
        client.expect(ASK_PASSWORD)
    for client in clients:
        assert client.recv_line() == REFUSALS[408]
        assert_on_time(client)
        client.expect_close()


def test_client_connected_in_time_outlives_the_deadline(hurried):
    with Client(hurried) as client:
        client.expect(ASK_PASSWORD)
        time.sleep(TIMEOUT / 2)
        client.send(b"secret\nweb-1\n")
        client.expect(ASK_ID)
        client.expect(CONNECTED)
        client.expect_silence(TIMEOUT + 0.2)
    assert hurried.rows()["web-1"]["reason"] == "" or hurried.rows()["web-1"]["cstatus"] == 0


# --- what is recorded, and from where -----------------------------------------------------------


def test_record_has_address_port_and_first_sid(server):
    before = int(time.time())
    with Client(server, source="127.0.0.7") as client:
        client.handshake("web-1")
        row = server.rows()["web-1"]
        assert (row["cip"], row["cport"]) == ("127.0.0.7", client.port)
        assert (row["sid"], row["cstatus"], row["reason"]) == (1, 1, "")
        assert before <= row["since"] <= time.time() + 1
        assert before <= row["last_seen"] <= time.time() + 1
        assert row["rtt_ms"] is None
        assert row["node"]


def test_ipv6_client_is_served_and_recorded(start_server):
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    server = start_server({"server": {"listen": "[::1]:0"}})
    assert re.fullmatch(r"\[::1\]:\d+", server.addresses[0])
    with Client(server) as client:
        client.handshake("six")
        row = server.rows()["six"]
        assert (row["cip"], row["cport"]) == ("::1", client.port)


def test_unix_client_is_served_and_recorded(start_server, folder):
    server = start_server({"server": {"listen": f"unix:{folder}/wire.sock"}})
    assert server.addresses == [f"unix:{folder}/wire.sock"]
    with Client(folder / "wire.sock") as client:
        client.handshake("local")
        row = server.rows()["local"]
        assert (row["cip"], row["cport"]) == ("unix", 0)


def test_several_listeners_serve_one_registry_and_are_listed_in_order(start_server, folder):
    server = start_server({"server": {
        "listen": f"127.0.0.1:0, [::1]:0, unix:{folder}/a.sock, 127.0.0.2:0"}})
    assert [re.sub(r":\d+$", ":N", address) for address in server.addresses] == [
        "127.0.0.1:N", "[::1]:N", f"unix:{folder}/a.sock", "127.0.0.2:N"]
    targets = [("127.0.0.1", int(server.addresses[0].rsplit(":", 1)[1])),
               ("::1", int(server.addresses[1].rsplit(":", 1)[1])),
               folder / "a.sock",
               ("127.0.0.2", int(server.addresses[3].rsplit(":", 1)[1]))]
    clients = [Client(target).handshake(f"web-{n}") for n, target in enumerate(targets)]
    assert {cid: row["cstatus"] for cid, row in server.rows().items()} == {
        f"web-{n}": 1 for n in range(4)}
    for client in clients:
        client.close()


# --- a client that closes its writing side ------------------------------------------------------


def test_half_closed_client_with_all_answers_sent_is_heard(server):
    with Client(server) as client:
        client.send(b"secret\nweb-1\n")
        client.finish_writing()
        client.expect(ASK_PASSWORD)
        client.expect(ASK_ID)
        line = client.recv_line()
        assert line in (CONNECTED, b"")
        if line:
            client.expect_close()
    wait_until(lambda: all(row["cstatus"] == 0 for row in rows(server.db).values()))


def test_half_close_after_140_ends_the_session_at_once(server):
    with Client(server) as client:
        client.handshake("web-1")
        client.finish_writing()
        client.expect_close(timeout=2)
    row = wait_until(lambda: (row := server.rows()["web-1"])["cstatus"] == 0 and row)
    assert row["reason"] == "left"


@pytest.mark.parametrize("data", [b"", b"secr", b"secret\n", b"secret\nweb-"])
def test_half_close_before_the_id_is_complete_ends_the_session(server, data):
    baseline = server.fds()
    with Client(server) as client:
        client.send(data)
        client.finish_writing()
        client.expect(ASK_PASSWORD)
        if data.startswith(b"secret\n"):
            client.expect(ASK_ID)
        client.expect_close(timeout=2)
    assert server.rows() == {}
    wait_until(lambda: server.fds() <= baseline)
