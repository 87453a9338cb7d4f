"""
FAULTS.md G01 for the other side: the n-th allocation of an agent's session over TLS fails, from the
connect to a refusal. It may give up; it does not crash, and it does not act.
"""

import os
import random
import subprocess

import pytest

from failing_alloc import FOREVER, FailingAlloc
from harness import BIN, SANITIZER_REPORTS, free_port, limit, write_secret
from oracle import FULL, fault
from pki import TLS_KEYS, pair, place

ROUNDS = int(os.environ.get("CLISER_ALLOC_ROUNDS", "0" if FULL else "40"))


class Agents:
    """Agents with the wrong password, each of which lives for one attempt."""

    def __init__(self, folder, authority):
        self.alloc = FailingAlloc(folder)
        self.mark = folder / "acted"
        password = folder / "agent-password"
        write_secret(password, "nobody knows it\n")
        self.options = ["--id", "agent", "--password-file", password, "--tls", "--ca",
                        authority.cert, "--once", "--on-shutdown", f"touch {self.mark}"]

    def run(self, address, n=FOREVER):
        """Returns the exit status, and what was said."""
        command = [BIN / "cliser-agent", "--server", "%s:%d" % address, *self.options]
        # To read the system's CAs takes a quarter of a million allocations.
        env = {**os.environ, **self.alloc.env, "SSL_CERT_FILE": os.devnull}
        self.alloc.arm(n)
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                               env=env, timeout=limit(30))
        self.alloc.disarm()
        return ended.returncode, ended.stderr


@fault("G01", "the n-th allocation of an agent's session over TLS fails")
@pytest.mark.skipif(not (BIN / "cliser-agent").exists(), reason="no cliser-agent: build first")
def test_agent(case, folder, ca):
    place(folder, *pair(ca))
    server = case.start({"server": TLS_KEYS}, witnesses=1)
    case.allow("an attempt has lines in the log", log_lines=10**6)
    agents = Agents(folder, ca)

    # OpenSSL does not survive every failure while it starts, nor need an agent: what counts begins
    # about where one ends that reaches nobody.
    assert agents.run(("127.0.0.1", free_port()))[0] == 1
    first = agents.alloc.calls - 20
    status, said = agents.run(server.tls_address)
    assert status == 1, f"a refused agent that lives once ends with 1, not {status}: {said}"
    assert agents.alloc.is_ready(), "the agent does not have the library"
    numbers = range(first, agents.alloc.calls + 1)
    total = len(numbers)
    if ROUNDS:
        numbers = sorted(random.sample(numbers, min(ROUNDS, total)))
    for n in numbers:
        status, said = agents.run(server.tls_address, n)
        assert status == 1, f"n = {n}: exit status {status}\n{said}"
        assert not any(report in said for report in SANITIZER_REPORTS), f"n = {n}\n{said}"
        assert not agents.mark.exists(), f"n = {n}: it has acted"
    case.note(f"{total} allocations, {len(numbers)} of them failed")
