"""
[server] user, seccomp and what else a server gives up before it is ready: seen from outside in
/proc, and from inside by attempt.c, which is loaded into the server and tries what an intruder
would.
"""

import os
import pathlib
import platform
import re
import signal
import subprocess

import pytest

from harness import BIN, Client, ini_text, merged, needs_root, run, sanitized

INTRUDER = BIN.parent / "tests" / "attempt.so"

# The calls for which a server is killed, and what becomes of each without the filter.
DEADLY = {
    "execve": "ENOENT", "execveat": "ENOENT", "ptrace": "ESRCH", "process_vm_readv": "",
    "bpf": "", "unshare": "done", "setuid": "done", "reboot": "", "packet_socket": "",
}
# Those that it is refused, as if the kernel did not have them.
REFUSED = {
    "netlink_socket": "done", "bind": "EBADF", "listen": "EBADF", "clone": "EINVAL", "kill": "done",
    "kill_thread_of_other": "done", "code_from_nothing": "done", "code_from_data": "done",
    "prctl": "done", "terminal_input": "EBADF", "signals_by_descriptor": "done",
    "limit_of_other": "done", "io_uring": "", "chmod": "",
}
ALLOWED = ["inet_socket", "kill_own_thread"]

# What the sanitizers need themselves, so that it is in the list of their builds.
OF_SANITIZERS = {"ptrace", "clone", "kill_thread_of_other", "prctl"}

without_sanitizers = pytest.mark.skipif(
    sanitized(), reason="the sanitizers need some of these calls themselves")


def marked(names):
    """The names as parameters; those of the sanitizers are left out in their builds."""
    return [pytest.param(name, marks=without_sanitizers) if name in OF_SANITIZERS else name
            for name in names]


def intruder(attempt):
    """The environment of a server with somebody in it who will try that."""
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"LD_PRELOAD": str(INTRUDER), "ATTEMPT": attempt,
            "ASAN_OPTIONS": f"{options}:verify_asan_link_order=0".lstrip(":")}


def status(server, field):
    """A field of /proc/PID/status."""
    text = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return re.search(rf"^{field}:\s+(.*)$", text, re.M)[1]


# --- what holds ---------------------------------------------------------------------------------


def test_filter_and_no_new_privileges_are_on_by_default(start_server):
    server = start_server({"server": {"seccomp": None}})
    assert status(server, "Seccomp") == "2" and status(server, "NoNewPrivs") == "1"
    line = server.wait_log(r" info sandbox ")
    assert "seccomp=on no_new_privs=yes" in server.log_text(), line


def test_without_the_filter_there_are_no_new_privileges_all_the_same(start_server):
    server = start_server({"server": {"seccomp": "no"}})
    assert status(server, "Seccomp") == "0" and status(server, "NoNewPrivs") == "1"
    server.wait_log(r" info sandbox seccomp=off no_new_privs=yes")


def test_it_holds_before_the_first_client_is_read(server):
    log = server.log_text()
    assert log.index(" sandbox ") < log.index("ready: ")


def test_there_is_one_thread_that_it_holds_for(server):
    assert len(os.listdir(f"/proc/{server.pid}/task")) == 1


def test_check_of_a_file_is_not_touched_by_it(bin_dir, folder):
    ini = ini_text(merged({"server": {"seccomp": "yes"}}))
    result = run("-t", "test.ini", folder=folder, ini=ini)
    assert result.returncode == 0 and result.stdout == "test.ini: ok\n", result


def test_change_of_the_key_needs_a_restart(server):
    mark = server.mark_log()
    server.reload({"server": {"seccomp": "no"}})
    server.wait_log(r"restart_needed section=server key=seccomp", start=mark)
    assert status(server, "Seccomp") == "2"


@needs_root
def test_log_is_written_to_a_stderr_of_somebody_else(start_server, folder):
    """There the log asks by poll() whether a line can be taken."""
    folder.chmod(0o777)
    server = start_server(user=65534)
    with Client(server) as client:
        client.handshake("web-1")
        server.wait_log(r" info connected .*cid=web-1 ")


# --- an intruder --------------------------------------------------------------------------------


# Without the filter, too, a call by a number of 32-bit programs is death on kernels that run none.
@pytest.mark.parametrize("attempt", [
    *marked(DEADLY),
    pytest.param("call_of_32_bits", marks=pytest.mark.skipif(
        platform.machine() != "x86_64", reason="only x86-64 has such calls")),
])
def test_deadly_call_ends_the_server(start_server, attempt):
    server = start_server(env=intruder(attempt))
    server.exit_codes = {-signal.SIGSYS}
    server.signal(signal.SIGWINCH)
    assert server.wait_exit() == -signal.SIGSYS
    assert f"attempt {attempt}" not in server.log_text()


@pytest.mark.parametrize("attempt", marked(REFUSED))
def test_refused_call_is_one_that_this_kernel_does_not_have(start_server, attempt):
    server = start_server(env=intruder(attempt))
    with Client(server) as client:
        client.handshake("web-1")
        server.signal(signal.SIGWINCH)
        server.wait_log(f"attempt {attempt}: ENOSYS")
        client.expect_silence(0.1)
    with Client(server) as client:
        client.handshake("web-2")


@pytest.mark.parametrize("attempt", ALLOWED)
def test_allowed_call_is_made(start_server, attempt):
    server = start_server(env=intruder(attempt))
    server.signal(signal.SIGWINCH)
    server.wait_log(f"attempt {attempt}: done")


@pytest.mark.parametrize("attempt", [*DEADLY, *REFUSED])
def test_without_the_filter_an_intruder_gets_further(start_server, attempt):
    """That the tests above show the filter, and nothing that would happen anyway."""
    server = start_server({"server": {"seccomp": "no"}}, env=intruder(attempt))
    server.signal(signal.SIGWINCH)
    result = server.wait_log(rf"attempt {attempt}: \w+")
    expected = {**DEADLY, **REFUSED}[attempt]
    said = re.search(rf"attempt {attempt}: (\w+)", server.log_text())[1]
    assert said == expected if expected else said != "ENOSYS", result


# --- hosts that cannot --------------------------------------------------------------------------


def test_kernel_without_filters_gets_a_warning_and_a_server(start_server):
    server = start_server(env=intruder("no_filter"))
    server.wait_log(r" info sandbox seccomp=unavailable no_new_privs=yes")
    server.wait_log(r" warn seccomp_unavailable ")
    with Client(server) as client:
        client.handshake("web-1")


def test_filter_that_cannot_be_installed_is_no_start(bin_dir, folder):
    result = run("test.ini", folder=folder, ini=ini_text(merged({})), env=intruder("no_memory"))
    assert result.returncode == 1 and "ready:" not in result.stderr
    assert re.search(r"^cliserd: cannot install the filter of system calls: Cannot allocate "
                     r"memory; \[server\] seccomp = no starts without it$", result.stderr,
                     re.M), result


# --- privileges ---------------------------------------------------------------------------------


@needs_root
def test_root_without_user_is_warned_of(server):
    server.wait_log(r" warn running_as_root ")


@needs_root
def test_user_root_is_refused(bin_dir, folder):
    ini = ini_text(merged({"server": {"user": "root"}}))
    result = run("-t", "test.ini", folder=folder, ini=ini)
    assert result.returncode == 2
    assert re.search(r'test\.ini:\d+: user: "root" is root', result.stderr), result.stderr


@needs_root
def test_other_user_has_no_capabilities_and_no_way_back(start_server, folder):
    folder.chmod(0o777)
    server = start_server({"server": {"user": "nobody"}})
    for which in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status(server, which), 16) == 0, which
    assert set(status(server, "Uid").split()) == {"65534"}
    assert not server.find_log(" running_as_root ")
    server.wait_log(r" sandbox .*uid=65534 capabilities=none")


@needs_root
def test_capabilities_given_for_a_port_are_given_up(start_server, folder):
    folder.chmod(0o777)
    if subprocess.run(["setpriv", "--version"], capture_output=True).returncode != 0:
        pytest.skip("no setpriv here")
    bind = "+net_bind_service"
    server = start_server({"server": {"listen": "127.0.0.1:871"}}, wrap=[
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        f"--inh-caps={bind}", f"--ambient-caps={bind}"])
    assert server.port == 871
    for which in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status(server, which), 16) == 0, which
