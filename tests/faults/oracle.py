"""
What must be true whatever is done to the server: the one oracle of all faults.

  I1  the process is alive and no sanitizer has complained (the fixture start_server sees to that)
  I2  witnesses, clients in a process of their own, are asked in time and stay connected
  I3  the loop's lag: 99 % of the turns below 100 ms, none above 1 s
  I4  descriptors and memory come back to where they were
  I5  who is connected is who has an open socket: the witnesses, and whom the case says it holds
  I6  less than ten log lines a second
  I7  no processor time is used for nothing afterwards
  I8  nobody hears a 130 that was not ordered (harness.Listener sees to that, here and in the
      witnesses)
  I9  every accepted connection is open, or counted with exactly one reason why it is not

A case may say that one of them is not its own (allow()), and why.

  CLISER_FAULTS         full: all rounds and a thousand witnesses; else the short set
  CLISER_FAULTS_ROUNDS  so many rounds in every case, whatever the case says
  CLISER_FAULTS_ROWS    only these: A01,C runs A01 and all of C
  CLISER_FAULT_REPORT   each case leaves a line of JSON in this file
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest

import harness
from control import Control
from harness import limit, wait_until

FULL = os.environ.get("CLISER_FAULTS") == "full"
ROUNDS = int(os.environ.get("CLISER_FAULTS_ROUNDS", "0"))
WITNESSES = 1000 if FULL else 100
WITNESSES_SOURCE = "127.1.1.1"  # an address of their own, which no case gets into disrepute
INTERVAL_S = 1.0
MEMORY_SLACK_KIB = 6 * 1024
DESCRIPTOR_SLACK = 2
IDLE_CPU = 0.05

# Reasons that go with a refusal, which is counted as such.
REFUSED = {"protocol", "timed_out", "password", "invalid_id", "duplicate", "not_allowed",
           "too_many", "operator", "replaced", "full", "registry", "restarting"}


def preloaded(name, **environment):
    """The environment of a server that runs with one of tests/faults/preload/."""
    library = pathlib.Path(os.environ.get("CLISER_PRELOADS", harness.BIN.parent / "tests"))
    return {**environment, "LD_PRELOAD": str(library.resolve() / f"preload_{name}.so"),
            # AddressSanitizer wants to be the first library of all.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def fault(row, what, rounds=1, full=None):
    """
    Marks a case: its row in the table of faults, what is done, how many rounds in the short set and
    how many in the full one. With no round in the short set, the case is for the full one only.
    """
    usual = (full or rounds) if FULL else rounds
    return pytest.mark.fault(row=row, what=what, rounds=ROUNDS if ROUNDS and usual else usual)


class Witnesses:
    """
    Innocent clients in a process of their own, so that nothing here can make them late. They come
    to these addresses of the server in turn, the default being that for plain clients; over TLS to
    its tls_address, for which ca is wanted.
    """

    def __init__(self, server, count, prefix="witness", wrap=(), addresses=(), ca=None,
                 source=WITNESSES_SOURCE):
        self.count = count
        self.process = subprocess.Popen(
            [*wrap, sys.executable, str(pathlib.Path(__file__).with_name("witnesses.py")),
             str(count), prefix, source, str(ca.cert) if ca else "",
             *(("tls:" if address == server.tls_address else "") + "{}:{}".format(*address)
               for address in addresses or [server.address])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n", "the witnesses could not connect"

    def report(self):
        """What has become of them since the last report: failure, lost, max_gap_s, own_delay_s."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        """The last report."""
        out, _ = self.process.communicate()
        return json.loads(out)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class ProcessorWait:
    """
    How long the server was ready to run and others had the processors, as the kernel counts it: on
    a machine that does other things as well, that much later is not its fault.
    """

    def __init__(self, pid):
        self._file = open(f"/proc/{pid}/schedstat", encoding="ascii")
        self._samples = collections.deque([self._sample()])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _sample(self):
        self._file.seek(0)
        return time.monotonic(), int(self._file.read().split()[1]) / 1e9

    def _run(self):
        with contextlib.suppress(OSError, IndexError):  # the server has ended
            while True:
                self._samples.append(self._sample())
                time.sleep(0.1)

    def forget(self):
        while len(self._samples) > 1:
            self._samples.popleft()

    def worst(self, window_s):
        """The most that it waited within so many seconds."""
        samples = list(self._samples)
        worst = first = 0
        for when, waited in samples:
            while samples[first][0] < when - window_s - 0.1:
                first += 1
            worst = max(worst, waited - samples[first][1])
        return worst


class Case:
    """One case: its server, its witnesses, and what it may do that others may not."""

    def __init__(self, start_server, rounds):
        self._start_server = start_server
        self.rounds = rounds
        self.notes = []
        self.held = 0  # clients that the case still holds when it ends
        self.server = self.witnesses = self.control = None
        self._allowed = {}

    def start(self, overrides=None, witnesses=WITNESSES, in_network=False, ca=None, **options):
        """
        Starts the server, lets the witnesses in, and remembers how everything was. in_network: the
        server is in a network namespace of its own, and they join it there. ca: who has signed the
        server's certificate; every second witness comes over TLS then.
        """
        sections = {"keepalive": {"interval": f"{int(INTERVAL_S * 1000)}ms",
                                  "require_reply": "yes"},
                    "control": {"socket": "cliser.sock"}}
        for name, keys in (overrides or {}).items():
            sections[name] = {**sections.get(name, {}), **(keys or {})}
        self.server = self._start_server(sections, **options)
        self.control = Control(self.server)
        self.processor_wait = ProcessorWait(self.server.pid)
        enter = ["nsenter", "-t", str(self.server.pid), "-n"] if in_network else []
        addresses = [self.server.address] + ([self.server.tls_address] if ca else [])
        self.witnesses = Witnesses(self.server, witnesses, wrap=enter, addresses=addresses, ca=ca)
        if in_network:
            harness.in_namespace_of(self.server.pid, "net", self._warm_up)
        else:
            self._warm_up()
        self.begin()
        return self.server

    def _warm_up(self):
        """The first of everything allocates what stays."""
        harness.Client(self.server).outcome("warm-up", password="wrong")
        with harness.Client(self.server) as client:
            client.handshake("warm-up")

    def begin(self):
        """From here on it counts: for cases that prepare something first."""
        wait_until(lambda: self.connected() == self.witnesses.count + self.held, 5,
                   "only the witnesses, and who is held,")
        self.witnesses.report()
        self.fds = self.server.fds()
        self.rss_kib = self.server.rss_kib()
        self._from_here()

    def allow(self, why, **what):
        """
        lag_s, p99_s, gap_s, log_lines, memory_kib, lost: another bound, for this reason.
        late_turns: so many turns may take any time, as when the server is stopped so often.
        """
        assert why
        self._allowed.update(what)
        self.notes.append(why)

    def note(self, text):
        self.notes.append(text)

    def connected(self):
        return self.control.get("/v1/status")[1]["connected"]

    def check(self, last=True):
        """The oracle. The last time, the witnesses are done as well; else go_on() may follow."""
        self._check_alive()
        self._check_resources()
        self._check_idle()
        self._check_registry()
        self._check_sums()
        self._check_lag()
        self._check_log()
        self._check_witnesses(self.witnesses.stop() if last else self.witnesses.report())

    def go_on(self):
        """What was allowed is over, and what happened is forgotten, but not the first baseline."""
        self._allowed.clear()
        self.notes.clear()
        self.witnesses.report()
        self._from_here()

    def _from_here(self):
        self.metrics = self.control.metrics()
        self.processor_wait.forget()
        self.began = time.monotonic()
        self.log_mark = self.server.mark_log()

    def _bound(self, name, usual):
        return self._allowed.get(name, usual)

    def _check_alive(self):
        assert self.server.proc.poll() is None, "I1: the server has ended"

    def _check_resources(self):
        memory_kib = self._bound("memory_kib", MEMORY_SLACK_KIB)
        wait_until(lambda: self.server.fds() <= self.fds + DESCRIPTOR_SLACK + self.held, 30,
                   f"I4: descriptors back at {self.fds}")
        if not harness.sanitized():
            wait_until(lambda: self.server.rss_kib() <= self.rss_kib + memory_kib, 30,
                       f"I4: memory back at {self.rss_kib} KiB")

    def _check_idle(self):
        cpu, began = self.server.cpu_seconds(), time.monotonic()
        time.sleep(1)  # the measured time itself
        used = (self.server.cpu_seconds() - cpu) / (time.monotonic() - began)
        # The witnesses are asked once a second meanwhile; a hundred of them take a millisecond.
        bound = IDLE_CPU * harness.SCALE + self.witnesses.count * 5e-5 * harness.SCALE
        assert used < bound, f"I7: {used:.0%} of a processor while nothing happens"

    def _check_registry(self):
        wait_until(lambda: self.connected() == self.witnesses.count + self.held, 15,
                   f"I5: {self.witnesses.count} witnesses and {self.held} others connected")
        ids = {record["cid"] for page in self.control.pages(status="connected", limit=1000)
               for record in page}
        missing = {f"witness-{n}" for n in range(self.witnesses.count)} - ids
        assert not missing, f"I5: {len(missing)} witnesses are not in the list"
        if self.server.db.exists():
            wait_until(lambda: harness.connected_ids(self.server.db) == ids, 5,
                       "I5: the database's list of who is connected")

    def _check_sums(self):
        wait_until(lambda: not self._unaccounted(), 10, "I9: a reason for every connection")

    def _unaccounted(self):
        now = self.control.metrics()

        def grown(name, skip=()):
            return sum(value - self.metrics.get(series, 0) for series, value in now.items()
                       if series.startswith(name) and not any(f'"{word}"' in series
                                                              for word in skip))

        ended = (grown("cliser_handshakes_abandoned_total") + grown("cliser_refusals_total") +
                 grown("cliser_disconnects_total", skip=REFUSED))
        still_open = sum(grown(f'cliser_connections{{phase="{phase}"}}')
                         for phase in ("handshake", "connected", "leaving"))
        return grown("cliser_connections_accepted_total") - ended - still_open

    def _check_lag(self):
        now = self.control.metrics()
        name = "cliser_loop_lag_seconds"
        turns = now[f"{name}_count"] - self.metrics[f"{name}_count"]
        above = {}
        for series, value in now.items():
            found = re.match(rf'{name}_bucket{{le="([0-9.]+)"}}', series)
            if found:
                above[float(found[1])] = turns - (value - self.metrics[series])
        scale = harness.SCALE
        above[float("inf")] = 0
        slow_at = min(le for le in above if le >= self._bound("p99_s", 0.1) * scale)
        lag_s = self._bound("lag_s", 1.0)
        lag_s += self.processor_wait.worst(2 * lag_s)
        worst_at = min(le for le in above if le >= lag_s * scale)
        usual = min(le for le in above if above[le] <= turns / 100)
        reached = min(le for le in above if above[le] <= 0)
        self.lag_max_s = reached
        self.note(f"lag p99 ≤ {usual:g} s, max ≤ {reached:g} s")
        assert above[slow_at] <= turns / 100, f"I3: {above[slow_at]} of {turns} turns > {slow_at} s"
        assert above[worst_at] <= self._bound("late_turns", 0), \
            f"I3: {above[worst_at]} turns took more than {worst_at} s"

    def _check_log(self):
        lines = self.server.mark_log() - self.log_mark
        seconds = time.monotonic() - self.began
        bound = self._bound("log_lines", 10 * max(seconds, 5))
        assert lines <= bound, f"I6: {lines} log lines in {seconds:.1f} s"

    def _check_witnesses(self, report):
        self.gap_max_s = report["max_gap_s"]
        assert not report["failure"], f"I8: {report['failure']}"
        waited_s = self.processor_wait.worst(report["max_gap_s"])
        gap = self._bound("gap_s", 2 * INTERVAL_S) + waited_s
        self.note(f"gap ≤ {report['max_gap_s']:.2f} s")
        assert len(report["lost"]) <= self._bound("lost", 0), f"I2: lost {report['lost'][:5]}"
        assert report["max_gap_s"] <= limit(gap), \
            f"I2: a witness heard nothing for {report['max_gap_s']:.2f} s " \
            f"(it read up to {report['own_delay_s']:.2f} s late itself, and the server waited " \
            f"{waited_s:.2f} s for a processor)"
