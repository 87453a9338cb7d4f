"""
cliser-agent over TLS: whom it trusts, what it says when it does not, and that TLS opens no second
way to a command.
"""

import contextlib
import os
import re
import socket
import ssl

import pytest

from fake_server import PASSWORD, FakeServer
from harness import SANITIZER_REPORTS, holds_for
from pki import Authority, self_signed
from test_agent import PROGRAM, Bench, run_to_the_end

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: build first")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(ca):
    return ca.issue("good")


class TlsBench(Bench):
    """Agents get --tls and the CA; server is not listening before serve()."""

    def __init__(self, folder, ca):
        super().__init__(folder, None)
        self.ca = ca

    def serve(self, context, **options):
        self.server = FakeServer(tls=context, **options)
        return self.server

    def start_tls(self, *args, **options):
        return self.start("--tls", "--ca", self.ca.cert, *args, **options)

    def fails(self, agent, text):
        """It backs off, for this reason, and nothing has been done."""
        assert agent.wait_pause()[1] == "back_off"
        assert re.search(rf" not_connected reason=\"TLS: .*{text}", agent.log()), agent.log()
        assert not self.mark.exists()


@pytest.fixture
def bench(folder, ca):
    bench = TlsBench(folder, ca)
    yield bench
    for agent in bench.agents:
        if agent.proc.poll() is None:
            assert agent.stop() == 0, agent.log()
        assert not any(report in agent.log() for report in SANITIZER_REPORTS), agent.log()
        assert PASSWORD not in agent.log()
    if bench.server:
        bench.server.__exit__()


def say_end(session):
    """Sends a close_notify, and does not wait for the agent's, which may have come already."""
    session.sock.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.sock.unwrap()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_session_to_the_order_and_its_version_is_logged(bench, good, version):
    context = good.context()
    context.maximum_version = context.minimum_version = ssl.TLSVersion[version]
    bench.serve(context)
    agent = bench.start_tls()
    session = bench.server.connected("web-1")
    agent.wait_log(f" connected .*tls={version.replace('_', '.')}")
    session.keep_alive()
    session.order()
    bench.wait_acted()


@pytest.mark.parametrize("leave", [True, False])
def test_order_with_the_end_behind_it_counts_once(bench, good, leave):
    bench.serve(good.context())
    agent = bench.start_tls()
    session = bench.server.connected("web-1")
    agent.wait_log(" connected ")
    # Held back until all of it can leave together.
    session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    session.send("130: shutdown sys")
    if leave:
        say_end(session)
    session.sock.shutdown(socket.SHUT_WR)
    bench.wait_acted()
    agent.wait_log(" disconnected ")
    assert bench.acted() == 1


@pytest.mark.parametrize("leave", [True, False])
def test_last_line_is_heard_and_an_end_without_one_is_no_error(bench, good, leave):
    bench.serve(good.context())
    agent = bench.start_tls()
    session = bench.server.accept()
    session.send("450: server full")
    if leave:
        say_end(session)
    session.sock.close()
    agent.wait_log(" refused code=450")
    bench.server.connected("web-1", 10).sock.close()
    agent.wait_log(' disconnected reason="the server closed the connection"')
    assert not bench.mark.exists()


@pytest.mark.parametrize("name, san, days, text", [
    ("expired", "IP:127.0.0.1", -1, "has expired"),
    ("other-ip", "IP:127.0.0.2,DNS:127.0.0.1", 9, "for another host"),
    ("no-name", "DNS:localhost", 9, "for another host"),
])
def test_wrong_certificate_is_refused(bench, ca, name, san, days, text):
    bench.serve(ca.issue(name, san=san, days=days).context())
    agent = bench.start_tls()
    bench.server.accept_failing()
    bench.fails(agent, text)


def test_unknown_ca_is_refused(bench, folder):
    bench.serve(Authority(folder, "another-ca").issue("foreign").context())
    agent = bench.start_tls()
    bench.server.accept_failing()
    bench.fails(agent, "from an unknown CA")


def test_self_signed_certificate_is_refused_until_it_is_the_ca(bench, folder):
    pair = self_signed(folder, "alone")
    bench.serve(pair.context())
    agent = bench.start_tls()
    bench.server.accept_failing()
    bench.fails(agent, "self-signed")
    bench.start("--tls", "--ca", pair.cert, cid="web-2")
    bench.server.connected("web-2")


def test_without_a_ca_file_the_systems_are_asked(bench, good):
    bench.serve(good.context())
    agent = bench.start("--tls")
    bench.server.accept_failing()
    bench.fails(agent, "from an unknown CA")


def test_name_is_verified(bench, ca):
    bench.serve(ca.issue("localhost", san="DNS:localhost").context())
    bench.start_tls(server=f"localhost:{bench.server.port}")
    bench.server.connected("web-1")


def test_ipv6_address_is_verified(bench, ca):
    bench.serve(ca.issue("six", san="IP:::1").context(), address=("::1", 0))
    bench.start_tls()
    bench.server.connected("web-1")


def test_old_version_is_refused(bench, good):
    context = good.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    bench.serve(context)
    agent = bench.start_tls()
    bench.server.accept_failing()
    bench.fails(agent, "no common version")


def test_plain_server_is_told_and_its_lines_are_not_obeyed(bench):
    bench.serve(None)
    agent = bench.start_tls()
    bench.server.accept().send("110: qual a senha", "120: qual o ID", "140: Connected",
                               "130: shutdown sys")
    bench.fails(agent, "no TLS is spoken on that port")


def test_server_that_closes_in_the_handshake_is_tried_again(bench):
    bench.serve(None)
    agent = bench.start_tls()
    bench.server.accept().close()
    assert agent.wait_pause()[1] == "back_off"
    bench.server.accept(10)


def test_handshake_that_stalls_ends_with_its_owner(bench):
    """The 30 s of test_agent.py hold for it: here only that nothing else happens meanwhile."""
    bench.serve(None)
    agent = bench.start_tls()
    bench.server.accept()
    holds_for(lambda: not agent.found("not_connected|connected"), 0.5, "silence")
    assert agent.stop() == 0


def test_client_certificate_is_shown(bench, ca, good):
    mine = ca.issue("web-1", san="DNS:web-1")
    context = good.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.cert)
    bench.serve(context)
    bench.start_tls("--cert", mine.cert, "--key", mine.key)
    session = bench.server.connected("web-1")
    assert ("DNS", "web-1") in session.sock.getpeercert()["subjectAltName"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_missing_client_certificate_backs_off(bench, ca, good, version):
    context = good.context()
    context.maximum_version = ssl.TLSVersion[version]
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.cert)
    bench.serve(context)
    agent = bench.start_tls()
    bench.server.accept_failing()
    assert agent.wait_pause()[1] == "back_off"
    assert "TLS: " in agent.log() or "reset" in agent.log()
    assert not bench.mark.exists()


def ini_of(bench, *lines):
    path = bench.folder / "agent.ini"
    path.write_text("\n".join(["[agent]", "server = 127.0.0.1:9", "id = a",
                               f"password_file = {bench.password_file}", *lines, ""]))
    return path


def test_file_has_the_options_names(bench, ca, good):
    bench.serve(good.context())
    ini = ini_of(bench, "tls = yes", f"ca = {ca.cert}", f"cert = {good.cert}", f"key = {good.key}")
    bench.run("--server", bench.server.name, "--id", "web-1", ini)
    bench.server.connected("web-1")


def test_every_mistake_of_a_file_is_reported(bench, ca, good):
    empty = bench.folder / "empty.pem"
    empty.write_text("nothing\n")
    ini = ini_of(bench, "tls = yes", f"ca = {empty}", "cert = /nonexistent.pem",
                 f"key = {good.key}")
    result = run_to_the_end(ini)
    assert result.returncode == 2
    for line, text in {6: "ca: .*BEGIN CERTIFICATE",
                       7: "cert: cannot read /nonexistent.pem"}.items():
        assert re.search(rf"(?m)^cliser-agent: {re.escape(str(ini))}:{line}: {text}",
                         result.stderr), result.stderr


@pytest.mark.parametrize("lines, text", [
    (["ca = {ca}"], "5: ca: means nothing without tls; add tls = yes"),
    (["tls = no", "cert = {cert}", "key = {key}"], "6: cert: means nothing with tls = no"),
    (["tls = yes", "cert = {cert}"], "6: cert: needs key"),
    (["tls = yes", "key = {key}"], "6: key: needs cert"),
    (["tls = yes", "cert = {cert}", "key = {foreign}"], "7: key: .*does not belong"),
    (["tls = yes", "cert = {cert}", "key = {cert}"], "7: key: .*BEGIN PRIVATE KEY"),
])
def test_mistakes_say_what_would_be_right(bench, ca, good, lines, text):
    os.chmod(good.cert, 0o600)
    names = {"ca": ca.cert, "cert": good.cert, "key": good.key, "foreign": ca.key}
    result = run_to_the_end(ini_of(bench, *(line.format(**names) for line in lines)))
    assert result.returncode == 2
    assert re.search(f"agent.ini:{text}", result.stderr), result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660])
def test_key_that_others_can_read_is_refused_with_its_mend(bench, ca, good, mode):
    copy = bench.folder / "open.key"
    copy.write_bytes(good.key.read_bytes())
    copy.chmod(mode)
    result = run_to_the_end(ini_of(bench, "tls = yes", f"cert = {good.cert}", f"key = {copy}"))
    assert result.returncode == 2
    assert f":7: key: {copy}: " in result.stderr and f"chmod 640 {copy}" in result.stderr


def test_unix_socket_has_no_tls(bench):
    result = run_to_the_end("--server", "unix:/x", "--id", "a", "--password-file",
                            bench.password_file, "--tls")
    assert result.returncode == 2
    assert "--tls: needs a server HOST:PORT" in result.stderr


def test_real_server_takes_it_by_certificate(start_server, bench, ca, good):
    server = start_server({
        "server": {"tls_listen": "127.0.0.1:0", "tls_cert": good.cert, "tls_key": good.key},
        "auth": {"password": PASSWORD}})
    port = re.search(r"ready: .*tls:127\.0\.0\.1:(\d+)", server.log_text())[1]
    agent = bench.start_tls(server=f"127.0.0.1:{port}")
    agent.wait_log(" connected .*tls=TLSv1.3")
    server.wait_log(r" connected .*cid=web-1")
    assert server.stop() == 0
    assert agent.wait_pause()[1] == "back_off"
    assert not bench.mark.exists()
