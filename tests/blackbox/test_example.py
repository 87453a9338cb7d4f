"""The example client: what people copy has to be right, and short."""

import contextlib
import socket
import subprocess

import pytest

from fake_server import PASSWORD, FakeServer
from harness import BIN, ROOT, SANITIZER_REPORTS, limit
from pki import Authority

PROGRAM = BIN / "cliser-example"

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"no cliser-example in {BIN}: build first, or set CLISER_BIN")


class Example:
    def __init__(self, *args):
        self.proc = subprocess.Popen([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self):
        """Returns exit code, stdout and stderr."""
        try:
            out, err = self.proc.communicate(timeout=limit(10))
        finally:
            self.proc.kill()
        assert not any(report in err for report in SANITIZER_REPORTS), err
        return self.proc.returncode, out, err


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


def start(server, cid="pi-1"):
    return Example("127.0.0.1", server.port, PASSWORD, cid)


def test_whole_session_up_to_the_order(server):
    example = start(server)
    session = server.connected("pi-1")
    session.keep_alive()
    session.keep_alive()
    session.order()
    session.expect_end()
    code, out, err = example.finish()
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "await_password -> await_id",
        "await_id -> await_connected",
        "await_connected -> connected",
        "connected -> leaving",
        "ordered to shut down: the answer is sent, now it would happen",
    ]


def test_lines_may_come_byte_by_byte_and_together(server):
    example = start(server)
    session = server.accept()
    session.drip(b"110: qual a senha\r\n120: qual o ID\r\n140: Conn")
    session.send(b"ected\r\n100: keep alive\r\n130: shutdown sys\r\n")
    session.expect(PASSWORD.encode() + b"\npi-1\n100\n130\n")
    assert example.finish()[0] == 0


@pytest.mark.parametrize("line, why", [
    ("410: wrong password", 410), ("499: of a newer server", 499), ("130: shutdown sys", -1),
    ("hello", -1), (b"x" * 300, -1), (b"11\x000: qual a senha\r\n", -1), (b"", 0), (b"110", 0)])
def test_every_other_end_is_a_failure_that_shuts_nothing_down(server, line, why):
    example = start(server)
    session = server.accept()
    session.send(line)
    with contextlib.suppress(OSError):  # it may have seen enough, and be gone
        session.sock.shutdown(socket.SHUT_WR)
    code, out, _ = example.finish()
    assert code == 1
    assert out.splitlines()[-1] == f"why: {why}"
    assert "shut down" not in out


def test_reset_is_an_end(server):
    example = start(server)
    server.connected("pi-1").reset()
    code, out, _ = example.finish()
    assert code == 1
    assert out.splitlines()[-1] == "why: 0"


def test_usage_and_refused_connections_are_explained():
    for args in ([], ["127.0.0.1", "1", "", "id"], ["127.0.0.1", "1", "password", "no id"]):
        code, out, err = Example(*args).finish()
        assert (code, out) == (2, "")
        assert err == "usage: cliser-example HOST PORT PASSWORD ID [CA-FILE]\n"
    code, out, err = Example("127.0.0.1", "1", "password", "id").finish()
    assert (code, out) == (1, "")
    assert "127.0.0.1" in err


def test_real_server_takes_it(start_server):
    server = start_server({"auth": {"password": PASSWORD}})
    example = start(server)
    server.wait_log(r" connected .*cid=pi-1")
    assert server.stop() == 0
    code, out, _ = example.finish()
    assert code == 1
    assert out.splitlines()[2] == "await_connected -> connected"


@pytest.mark.parametrize("san, host", [("IP:127.0.0.1", "127.0.0.1"),
                                       ("DNS:localhost", "localhost")])
def test_tls_session_up_to_the_order(tmp_path, san, host):
    ca = Authority(tmp_path)
    with FakeServer(tls=ca.issue("good", san=san).context()) as server:
        example = Example(host, server.port, PASSWORD, "pi-1", ca.cert)
        session = server.connected("pi-1")
        session.keep_alive()
        session.order()
        assert example.finish()[0] == 0


@pytest.mark.parametrize("san, days", [("IP:127.0.0.2", 9), ("IP:127.0.0.1", -1)])
def test_tls_with_a_wrong_certificate_sends_no_password(tmp_path, san, days):
    ca = Authority(tmp_path)
    with FakeServer(tls=ca.issue("bad", san=san, days=days).context()) as server:
        example = Example("127.0.0.1", server.port, PASSWORD, "pi-1", ca.cert)
        server.accept_failing()
        code, out, err = example.finish()
    assert (code, out) == (1, "")
    assert "certificate verify failed" in err


def test_end_without_an_end_of_tls_is_an_end(tmp_path):
    ca = Authority(tmp_path)
    with FakeServer(tls=ca.issue("good").context()) as server:
        example = Example("127.0.0.1", server.port, PASSWORD, "pi-1", ca.cert)
        server.connected("pi-1").sock.close()
        code, out, err = example.finish()
    assert (code, err) == (1, "")
    assert out.splitlines()[-1] == "why: 0"


def test_missing_ca_file_is_explained(server, tmp_path):
    code, _, err = Example("127.0.0.1", server.port, PASSWORD, "pi-1", tmp_path / "none").finish()
    assert code == 1
    assert "none" in err


def test_it_is_under_140_lines():
    assert len((ROOT / "client" / "example.c").read_text().splitlines()) < 140
