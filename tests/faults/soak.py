#!/usr/bin/python3
"""
Hours of load and of faults at random, with the oracle on: soak.py [DURATION]. Called by
scripts/soak, which builds first.

A round is a crowd that comes and goes, one to three faults meanwhile, and then a quiet moment in
which everything has to be as it was. A line a round says how things are; build/soak/report.md says
at the end how they went, and how memory grew. The same seed gives the same order of faults.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "soak"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SLOPE_KIB_PER_H = 2048
SLOPE_NEEDS_S = 1800  # a slope over less says nothing
MAX_COMPLAINTS = 10


def duration(text):
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text}: a number and s, m, h or d is wanted, as in 5m")
    return int(found[1]) * UNITS[found[2]]


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="Load and faults at random, with every invariant watched; "
        f"the report goes to {FOLDER.relative_to(ROOT)}/report.md.",
        epilog="Exit status: 0 no complaint; 1 there were some; 2 wrong use. Ctrl-C ends it early, "
        "with a report.")
    parser.add_argument("duration", nargs="?", type=duration, default="1h", metavar="DURATION",
                        help="30s, 5m, 24h … (1h)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32),
                        help="repeats the faults of another run, in their order")
    parser.add_argument("--build", choices=("release", "asan"), default="release")
    parser.add_argument("--witnesses", type=int, default=200, metavar="N")
    parser.add_argument("--crowd", type=int, default=2000, metavar="N",
                        help="clients of a crowd at most (2000)")
    return parser.parse_args()


OPTIONS = arguments()
os.environ["CLISER_BIN"] = str(ROOT / "build" / OPTIONS.build / "bin")
os.environ["CLISER_PRELOADS"] = str(ROOT / "build" / OPTIONS.build / "tests")
os.environ.setdefault("CLISER_TIME_SCALE", "4" if OPTIONS.build == "asan" else "1")
os.environ["CLISER_FAULTS"] = "full"
sys.path[:0] = [str(HERE), str(HERE.parent / "blackbox")]

import pytest  # noqa: E402

import harness  # noqa: E402
import oracle  # noqa: E402
from control import Raw  # noqa: E402
from crowd import Crowd  # noqa: E402
from fleet import Fleet  # noqa: E402
from harness import Client, Swarm, limit, wait_until  # noqa: E402

FAILURES = (Exception, pytest.fail.Exception)


class Soak:
    """The server, its oracle, and what may be done to it."""

    def __init__(self, options):
        self.options = options
        self.dice = random.Random(options.seed)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cliser-soak-"))
        self.disk = self.folder / "disk-control"
        self.disk.write_bytes(b"0")
        self.kernel = self.folder / "kernel"
        self.kernel.write_bytes(bytes(24))
        self.case = oracle.Case(self._start_server, 0)
        self.complaints = []
        self.samples = []  # (seconds, KiB of RSS in a quiet moment)
        self.rounds = 0
        self.fault = "start"
        self.counts = {}
        self.lag_max_s = self.gap_max_s = 0.0
        self.log_file = (FOLDER / "cliserd.log").open("w", encoding="utf-8")

    def _start_server(self, overrides, **options):
        sections = harness.merged(overrides)
        server = harness.Server(self.folder, harness.ini_text(sections), wait=False, **options)
        server.sections = sections
        server.wait_ready()
        return server

    def start(self):
        disk = oracle.preloaded("disk", CLISER_DISK_CONTROL=str(self.disk))
        sockets = oracle.preloaded("sockets", CLISER_SOCKETS_CONTROL=str(self.kernel))
        both = {**disk, **sockets, "LD_PRELOAD": f"{disk['LD_PRELOAD']}:{sockets['LD_PRELOAD']}"}
        self.case.start({"limits": {"handshake_timeout": "5s"}}, env=both,
                        witnesses=self.options.witnesses)
        self.server = self.case.server
        self.control = self.case.control
        self.began = time.monotonic()

    # What is done to it. Each says what it did; what it may cost it tells the oracle.

    def silent_flood(self):
        with Swarm(self.server) as swarm:
            swarm.add_all([None] * self.dice.randrange(50, 1500))
            swarm.pump(self.dice.uniform(0.1, 6), scaled=False)
        return f"{len(swarm.members)} silent"

    def resets(self):
        count = self.dice.randrange(100, 5000)
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.connect(self.server.address)
            with contextlib.suppress(OSError):
                sock.send(b"secret\nreset-%d\n" % self.dice.randrange(100))
            sock.close()
        return f"{count} resets"

    def garbage(self):
        count = self.dice.randrange(10, 200)
        for _ in range(count):
            with socket.create_connection(self.server.address,
                                          source_address=(self.bad_source(), 0)) as sock:
                with contextlib.suppress(OSError):
                    sock.send(self.dice.randbytes(self.dice.randrange(1, 3000)))
                    sock.settimeout(0.05)
                    sock.recv(1000)
        return f"{count} times garbage"

    def wrong_passwords(self):
        count = self.dice.randrange(10, 200)
        source = self.bad_source()
        for _ in range(count):
            with socket.create_connection(self.server.address, source_address=(source, 0)) as sock:
                sock.settimeout(limit(5))
                with contextlib.suppress(OSError):
                    sock.send(b"wrong\n")
                    while sock.recv(1000):
                        pass
        return f"{count} wrong passwords from {source}"

    def bad_source(self):
        return f"127.2.{self.dice.randrange(256)}.{self.dice.randrange(1, 255)}"

    def storm_of_one_id(self):
        count = self.dice.randrange(10, 300)
        with Swarm(self.server, pipelined=True) as swarm:
            swarm.add_all(["the-one"] * count)
            swarm.settle(20)
            assert swarm.count("connected") <= 1, "one ID, several clients"
        return f"one ID {count} times at once"

    def stop_the_server(self):
        seconds = self.dice.uniform(0.1, 8)
        self.allow(f"stopped for {seconds:.1f} s", seconds)
        self.server.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.server.signal(signal.SIGCONT)
        return f"stopped for {seconds:.1f} s"

    def no_descriptors(self):
        old = self.server.leave_descriptors(self.dice.randrange(10))
        try:
            with Swarm(self.server) as swarm:
                swarm.add_all([None] * 200)
                swarm.pump(self.dice.uniform(0.2, 3), scaled=False)
                assert self.control.get("/v1/status")[0] == 200
        finally:
            self.server.set_limit(resource.RLIMIT_NOFILE, old)
        return "no descriptors"

    def deaf_kernel(self):
        point, errors = self.dice.choice([(0, [103, 71, 105, 100, 12]), (12, [28, 12])])
        error = self.dice.choice(errors)
        with open(self.kernel, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("iii", error, -1, 0), point)
            time.sleep(self.dice.uniform(0.1, 3))
            os.pwrite(file.fileno(), struct.pack("iii", 0, -1, 0), point)
        return f"{'epoll_ctl' if point else 'accept4'}: {os.strerror(error)}"

    def bad_disk(self):
        mode = self.dice.choice("wsoe")
        self.set_disk(mode)
        time.sleep(self.dice.uniform(0.1, 5))
        self.set_disk("0")
        wait_until(lambda: self.control.get("/readyz")[0] == 200, 30, "ready after the disk healed")
        return f"disk: {mode}"

    def set_disk(self, mode):
        with self.disk.open("r+b") as file:
            file.write(mode.encode())

    def reload(self):
        if self.dice.random() < 0.3:
            self.server.reload(ini="[server]\nlisten = nowhere\n", event="reload_failed")
            return "a broken reload"
        self.server.reload({
            "auth": {"password": [harness.PASSWORD, f"other-{self.dice.randrange(1000)}"]},
            "limits": {"handshake_timeout": f"{self.dice.randrange(2, 8)}s",
                       "max_pending": self.dice.choice([2000, 8000, 16384])}})
        return "a reload"

    def nosy_operators(self):
        for _ in range(self.dice.randrange(5, 60)):
            path = self.dice.choice(["/v1/status", "/metrics", "/v1/clients?limit=1000", "/readyz",
                                     "/v1/clients?match=witness-*", "/v1/clients/nobody",
                                     "/v1/shutdown", "/nothing"])
            with Raw(self.control) as raw:
                raw.ask(f"GET {path}")
                if self.dice.random() < 0.7:
                    raw.answer(10)
        with self.control.events():
            self.control.post(f"/v1/clients/witness-{self.dice.randrange(10)}/ping")
        with Raw(self.control) as raw:
            raw.send(self.dice.randbytes(self.dice.randrange(1, 2000)))
        return "nosy operators"

    def shutdown_order(self):
        ids = [f"fleet-{number}" for number in range(self.dice.randrange(1, 50))]
        behaviour = self.dice.choice(["obey", "vanish", "ack"])
        with Fleet(self.server) as fleet:
            fleet.add(behaviour, *ids)
            status, answer = self.control.post("/v1/shutdown", {
                "waves": [["fleet-*"]], "grace": "2s", "hold": "0s"})
            assert status == 202, answer
            fleet.wait_told(*ids)
            wait_until(lambda: self.control.get("/v1/shutdown")[1]["state"] == "done", 15,
                       "the order's end")
        return f"told {len(ids)} to shut down ({behaviour})"

    def reader_of_nothing(self):
        deaf = Client(self.server, rcvbuf=1).handshake("deaf")
        time.sleep(self.dice.uniform(0.5, 5))
        deaf.close()
        return "a peer that never reads"

    FAULTS = [silent_flood, resets, garbage, wrong_passwords, storm_of_one_id, stop_the_server,
              no_descriptors, deaf_kernel, bad_disk, reload, nosy_operators, shutdown_order,
              reader_of_nothing]

    # The crowd of a round.

    def crowd(self):
        count = self.dice.randrange(100, self.options.crowd)
        options = self.dice.choice([["--churn"], [], ["--rate", "500"], ["--silent", "30"]])
        return Crowd(self.server, count, *options), f"{count} clients {' '.join(options)}".rstrip()

    def leave(self, crowd):
        way = self.dice.choice([signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
        crowd.signal(way)
        if way == signal.SIGSTOP:
            time.sleep(self.dice.uniform(0.5, 5))
        with contextlib.suppress(subprocess.TimeoutExpired):
            crowd.process.wait(1 if way == signal.SIGSTOP else 20)
        crowd.kill()

    # The rounds.

    def allow(self, why, stopped_s):
        """Two stops in a round may come one after the other."""
        self.gap_s += stopped_s
        self.late_turns += 1
        self.case.allow(why, gap_s=self.gap_s, late_turns=self.late_turns)

    def round(self):
        self.rounds += 1
        self.gap_s = 3 * oracle.INTERVAL_S
        self.late_turns = 0
        # Everything that had a name stays known; names are used again, so that ends somewhere.
        self.case.allow("records of the crowd are kept", memory_kib=16384 + self.options.crowd,
                        gap_s=self.gap_s)
        done = []
        crowd, said = self.crowd()
        done.append(said)
        with crowd:
            for _ in range(self.dice.randrange(1, 4)):
                fault = self.dice.choice(self.FAULTS)
                self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
                self.fault = fault.__name__
                done.append(fault(self))
            self.fault = "afterwards"
            self.leave(crowd)
        time.sleep(2 * oracle.INTERVAL_S)  # a silence of this round shall not end in the next one
        self.check(done)

    def check(self, done):
        self.case.check(last=False)
        self.lag_max_s = max(self.lag_max_s, self.case.lag_max_s)
        self.gap_max_s = max(self.gap_max_s, self.case.gap_max_s)
        self.samples.append((self.elapsed(), self.server.rss_kib()))
        self.say(f"round {self.rounds}: {self.case.connected()} clients, "
                 f"{self.server.rss_kib()} KiB, {self.server.fds()} descriptors, lag ≤ "
                 f"{self.case.lag_max_s:g} s, gap {self.case.gap_max_s:.2f} s; {'; '.join(done)}")

    def complain(self, error):
        text = str(error).strip().splitlines()
        text = (f"round {self.rounds}, {self.elapsed():.0f} s, {self.fault}: "
                f"{text[0] if text else repr(error)}")
        self.complaints.append(text)
        self.say(f"COMPLAINT {text}")
        traceback.print_exception(error, limit=-3)

    def recover(self):
        """As it was before, so that one complaint is not repeated for hours."""
        self.set_disk("0")
        self.kernel.write_bytes(bytes(24))
        self.server.signal(signal.SIGCONT)
        self.case.witnesses.kill()
        wait_until(lambda: self.case.connected() == 0, 30, "nobody connected")
        self.case.witnesses = oracle.Witnesses(self.server, self.options.witnesses)

    def elapsed(self):
        return time.monotonic() - self.began

    def say(self, text):
        print(f"{datetime.timedelta(seconds=int(self.elapsed()))} {text}", flush=True)

    def keep_log(self):
        for line in self.server.take_log():
            self.log_file.write(line + "\n")
        self.log_file.flush()

    def run(self):
        while self.elapsed() < self.options.duration and len(self.complaints) < MAX_COMPLAINTS:
            try:
                self.round()
            except FAILURES as error:
                self.complain(error)
                if self.server.proc.poll() is not None:
                    return
                self.recover()
            self.keep_log()
            self.case.go_on()

    def finish(self):
        """Ends everything; the server's own end is looked at too."""
        self.case.witnesses.kill()
        complaint = self.server.finish()
        if complaint:
            self.complaints.append(complaint)
        for line in self.server.take_log():
            self.log_file.write(line + "\n")
        self.log_file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        slope = self.slope_kib_per_h()
        if slope is not None and slope > MAX_SLOPE_KIB_PER_H:
            self.complaints.append(f"memory grows by {slope:.0f} KiB an hour")

    def slope_kib_per_h(self):
        """Of the last two thirds, when every name has been there: least squares."""
        late = self.samples[len(self.samples) // 3:]
        if harness.sanitized() or len(late) < 3 or late[-1][0] - late[0][0] < SLOPE_NEEDS_S * 2 / 3:
            return None
        mean_x = sum(x for x, _ in late) / len(late)
        mean_y = sum(y for _, y in late) / len(late)
        return (sum((x - mean_x) * (y - mean_y) for x, y in late) /
                sum((x - mean_x) ** 2 for x, _ in late) * 3600)

    def report(self):
        slope = self.slope_kib_per_h()
        lines = [
            "# Soak", "",
            f"{datetime.datetime.now():%Y-%m-%d %H:%M}, build {self.options.build}, seed "
            f"{self.options.seed}", "",
            "| | |", "|---|---|",
            f"| took | {datetime.timedelta(seconds=int(self.elapsed()))} |",
            f"| rounds | {self.rounds} |",
            f"| witnesses | {self.options.witnesses} |",
            f"| longest turn of the loop | ≤ {self.lag_max_s:g} s |",
            f"| longest silence for a witness | {self.gap_max_s:.2f} s |"]
        if self.samples:
            lines.append(f"| memory, first and last quiet moment | {self.samples[0][1]} and "
                         f"{self.samples[-1][1]} KiB |")
        lines.append("| memory's slope over the last two thirds | " + (
            f"{slope:+.0f} KiB/h |" if slope is not None else
            f"not said: it takes {SLOPE_NEEDS_S // 60} min, and no sanitizers |"))
        lines += ["", "| fault | times |", "|---|--:|"]
        lines += [f"| {name} | {count} |" for name, count in sorted(self.counts.items())]
        lines += ["", f"{len(self.complaints)} complaints"]
        lines += [f"- {complaint}" for complaint in self.complaints]
        return "\n".join(lines) + "\n"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"seed {OPTIONS.seed}", flush=True)
    soak = Soak(OPTIONS)
    soak.start()
    try:
        soak.run()
    except KeyboardInterrupt:
        soak.say("interrupted")
    except FAILURES as error:  # it could not even recover
        soak.complain(error)
    soak.finish()
    text = soak.report()
    (FOLDER / "report.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    sys.exit(bool(soak.complaints))


if __name__ == "__main__":
    main()
