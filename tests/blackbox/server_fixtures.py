"""Fixtures of the black-box tests and of the fault suite. What they hand out is in harness.py."""

import pathlib
import shutil
import tempfile

import pytest

pytest.register_assert_rewrite("harness", "control", "pki")

import harness  # noqa: E402 (its assertions shall say what they compared)
import pki  # noqa: E402


@pytest.fixture
def bin_dir():
    """Where the programs are; the test is skipped when there is no server to test."""
    if not (harness.BIN / "cliserd").exists():
        pytest.skip(f"no cliserd in {harness.BIN}: build first, or set CLISER_BIN")
    return harness.BIN


@pytest.fixture
def folder():
    """
    A folder of the test's own that other users may enter. pytest's tmp_path may be too long for a
    unix socket.
    """
    path = pathlib.Path(tempfile.mkdtemp(prefix="cliser-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def ca():
    """A CA with what most tests need: certificates are dear to make, and nothing changes them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cliser-ca-"))
    folder.chmod(0o755)
    authority = pki.Authority(folder)
    authority.issue("server")
    authority.issue("second")
    authority.issue("rsa", key="rsa")
    authority.issue("expired", dates=("20200101000000Z", "20210101000000Z"))
    authority.issue("future", dates=("20900101000000Z", "20910101000000Z"))
    authority.issue("web-1", "/CN=web-1", None)
    authority.issue("web-2", "/O=Test", "DNS:other,DNS:web-2")
    authority.issue("gone", "/CN=web-1", None, dates=("20200101000000Z", "20210101000000Z"))
    yield authority
    shutil.rmtree(folder)


@pytest.fixture
def start_server(request, bin_dir, folder):
    """
    Starts servers: start_server({"keepalive": {"interval": "100ms"}}) waits for its ready line.

    The dict goes over harness.DEFAULTS; ini= gives the whole file instead. args, env, wrap (a
    command that ends up running cliserd), limits ({RLIMIT_…: (soft, hard)}), user (a uid) and
    wait=False are for tests about just that. A second server of the same test gets a folder of its
    own unless it is given one with folder=.
    """
    started = request.node.stash[_servers] = []

    def start(overrides=None, *, ini=None, folder=folder, **options):
        folder = pathlib.Path(folder)
        if any(server.folder == folder and server.proc.poll() is None for server in started):
            folder = folder / f"server-{len(started)}"
            folder.mkdir()
        sections = harness.merged(overrides)
        wait = options.pop("wait", True)
        server = harness.Server(folder, harness.ini_text(sections) if ini is None else ini,
                                wait=False, **options)
        server.sections = sections
        started.append(server)
        if wait:
            server.wait_ready()
        return server

    yield start
    complaints = [complaint for server in started if (complaint := server.finish())]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture
def server(start_server):
    """A server with the test defaults, for tests that need no others."""
    return start_server()


_servers = pytest.StashKey()


def show_logs(item, report):
    """Adds the log of every server of a test that failed to its report."""
    if not report.failed:
        return
    for number, server in enumerate(item.stash.get(_servers, [])):
        lines = server.log_text().splitlines()
        shown = lines if len(lines) <= 80 else lines[:20] + ["…"] + lines[-60:]
        report.sections.append((f"cliserd {number} (pid {server.pid})", "\n".join(shown)))
