"""cliser-stress over TLS: a handshake for each client, and every failure by its reason."""

import re
import threading

import pytest

from fake_server import FakeServer
from harness import PASSWORD
from pki import Authority, self_signed
from test_stress import STRESS, plain, stress

pytestmark = pytest.mark.skipif(not STRESS.exists(), reason=f"no {STRESS}: build first")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(ca):
    return ca.issue("good")


def tls_port(server):
    return re.search(r"ready: .*tls:127\.0\.0\.1:(\d+)", server.log_text())[1]


def run(*args, port):
    return stress("--password", PASSWORD, *args, port=port)


@pytest.fixture
def server(start_server, good):
    return start_server({
        "server": {"tls_listen": "127.0.0.1:0", "tls_cert": good.cert, "tls_key": good.key},
        "registry": {"store": "memory"}})


def test_tls_is_a_phase_of_its_own(server, ca):
    result = run("--tls", "--ca", ca.cert, "-n", 50, "-d", "300ms", port=tls_port(server))
    assert result.code == 0, result.err
    report = result.report
    assert report["clients"]["up"] == 50
    assert report["latency_us"]["tls"]["count"] == 50
    assert report["latency_us"]["tls"]["min"] > 0
    assert (report["asked"]["tls"], report["asked"]["tls_verified"]) == (True, True)
    assert report["achieved"]["tls_version"] == "TLSv1.3"
    assert report["bytes"]["in"] >= 50 * 49 and report["bytes"]["out"] >= 50 * 16
    assert re.search(r"(?m)^  TLS handshake +\d", result.err)
    assert "TLSv1.3" in result.err


def test_churn_over_tls_adds_up(server, ca):
    result = run("--tls", "--ca", ca.cert, "-n", 200, "-c", "-i", 8, port=tls_port(server))
    assert result.code == 0, result.err
    assert result.report["latency_us"]["tls"]["count"] == 200


def test_without_tls_the_phase_is_not_shown(server):
    result = run("-n", 5, "-d", "100ms", port=server.port)
    assert result.code == 0
    assert "TLS" not in result.err
    assert result.report["latency_us"]["tls"]["count"] == 0
    assert result.report["asked"]["tls"] is False
    assert result.report["achieved"]["tls_version"] is None


def test_plain_port_is_told(server, ca):
    result = run("--tls", "--ca", ca.cert, "-n", 7, port=server.port)
    assert result.code == 1
    assert result.report["clients"]["tls_failed"] == {"no_tls": 7}
    assert "TLS failed: no TLS is spoken on that port " in result.err


@pytest.mark.parametrize("args", [[], ["--ca", "foreign"]])
def test_unknown_ca_fails_by_its_reason(server, tmp_path, args):
    foreign = self_signed(tmp_path, "foreign")
    args = [foreign.cert if arg == "foreign" else arg for arg in args]
    result = run("--tls", *args, "-n", 5, port=tls_port(server))
    assert result.code == 1
    assert result.report["clients"]["tls_failed"] == {"unknown_ca": 5}
    assert result.report["clients"]["failed"] == 5


def test_insecure_verifies_nothing_and_says_so(server):
    result = run("--tls", "--insecure", "-n", 5, "-d", "100ms", port=tls_port(server))
    assert result.code == 0, result.err
    assert result.report["asked"]["tls_verified"] is False
    assert "TLS without verification" in result.err


def test_client_certificate_is_shown_or_missed(start_server, ca, good):
    server = start_server({
        "server": {"tls_listen": "127.0.0.1:0", "tls_cert": good.cert, "tls_key": good.key,
                   "tls_client_ca": ca.cert},
        "registry": {"store": "memory"}})
    one = ca.issue("stress-1", san="DNS:stress-1")
    common = ["--tls", "--ca", ca.cert, "-n", 1, "-d", "100ms"]
    result = run(*common, "--cert", one.cert, "--key", one.key, port=tls_port(server))
    assert result.code == 0, result.err
    result = run(*common, port=tls_port(server))
    assert result.code == 1
    clients = result.report["clients"]
    assert clients["tls_failed"] == {"rejected": 1} or clients["lost_early"] == {"ECONNRESET": 1}


def test_handshake_that_stalls_is_given_up(ca):
    with FakeServer() as silent:
        accepting = threading.Thread(target=lambda: [silent.accept() for _ in range(3)])
        accepting.start()
        result = run("--tls", "--ca", ca.cert, "-n", 3, "-t", "300ms", port=silent.port)
        accepting.join()
    assert result.code == 1
    assert result.report["clients"]["timed_out"] == 3
    assert result.report["latency_us"]["tcp_connect"]["count"] == 3
    assert result.report["latency_us"]["tls"]["count"] == 0


@pytest.mark.parametrize("args, text", [
    (["--ca", "x"], "--ca, .* mean nothing without --tls"),
    (["--insecure"], "--insecure, .* mean nothing without --tls"),
    (["--tls", "--insecure", "--ca", "x"], "one or the other"),
    (["--tls", "--cert", "x"], "belong together"),
    (["--tls", "--ca", "/nonexistent"], "--ca: cannot read /nonexistent"),
    (["--tls", "-s", "unix:/x"], "--tls: needs HOST:PORT"),
])
def test_wrong_usage_says_what_would_be_right(args, text):
    done = plain(*args)
    assert done.returncode == 2
    assert re.search(text, done.stderr), done.stderr
