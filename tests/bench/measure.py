"""One server on one processor, the load on another: starts both, and reads what the server used.

Each function here is one measurement with a fresh server, and returns its figures by name.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import servers

START_TIMEOUT_S = 20
INFLIGHT = 128


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Rig:
    """Where the programs are, and the processor that each side is bound to."""

    programs: pathlib.Path
    server_processor: int
    load_processor: int


class Running:
    """A server and its load, both started; use with 'with'."""

    def __init__(self, server, rig, interval_ms=servers.NEVER_MS):
        self.server = server
        self.rig = rig
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cliser-bench-"))
        self.port = free_port()
        self.processes = []
        self.log = open(self.folder / "log", "w+", encoding="utf-8")  # closed in close()
        argv = server.argv(rig.programs, self.folder, self.port, interval_ms)
        try:
            self.process = self._start(argv, rig.server_processor, stdout=self.log, stderr=self.log)
            self._wait_until_ready()
            self.load = self._start(
                [
                    *(str(rig.programs / "bench-load"), server.dialect),
                    *(str(self.port), servers.PASSWORD),
                ],
                rig.load_processor,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
        self.log.close()
        shutil.rmtree(self.folder)

    def _start(self, argv, processor, **streams):
        process = subprocess.Popen(
            argv,
            cwd=self.folder,
            preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
            **streams,
        )
        self.processes.append(process)
        return process

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise RuntimeError(f"{self.server.name} does not start:\n{self.log.read()}")
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.connect(("127.0.0.1", self.port))
                return
            time.sleep(0.01)

    def tell(self, command):
        """Gives the load one command; returns its answer when it is done."""
        self.load.stdin.write(command + "\n")
        self.load.stdin.flush()
        answer = self.load.stdout.readline()
        if not answer:
            self.log.seek(0)
            raise RuntimeError(f"{self.server.name}: '{command}' failed\n{self.log.read()}")
        result = json.loads(answer)
        if result["failed"]:
            raise RuntimeError(f"{self.server.name}: '{command}': {result['failed']} failed")
        return result

    def timed(self, command):
        """As tell(), with the processor time the server and the load used meanwhile."""
        server, load = cpu_s(self.process.pid), cpu_s(self.load.pid)
        result = self.tell(command)
        result["server_s"] = cpu_s(self.process.pid) - server
        result["load_s"] = cpu_s(self.load.pid) - load
        return result

    def start_storm(self, rate, connections):
        """Starts clients that come and go, so many a second, beside the load."""
        argv = [
            *(str(self.rig.programs / "cliser-stress"), "--churn", "--id-prefix", "storm-"),
            *("--server", f"127.0.0.1:{self.port}", "--password", servers.PASSWORD),
            *("--rate", f"{rate}/s", "--clients", str(int(connections))),
        ]
        return self._start(
            argv, self.rig.load_processor, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )

    def private_bytes(self):
        """Memory that is the server's alone: neither its program file nor shared libraries."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * sum(
            int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")
        )


def cpu_s(pid):
    """Processor time of all threads, to the nanosecond."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def churn(server, rig, connections, held=0):
    """Microseconds of the server for one connection (handshake and close), beside others that stay
    connected and do nothing."""
    with Running(server, rig) as run:
        # Warm: libraries are loaded, buffers and files have grown.
        run.tell(f"churn {max(connections // 10, 1)} {INFLIGHT}")
        if held:
            run.tell(f"hold {held} {INFLIGHT}")
        result = run.timed(f"churn {connections} {INFLIGHT}")
    return {
        "connect_us": result["server_s"] / connections * 1e6,
        "connects_per_s": connections / result["seconds"],
        "connect_load_share": result["load_s"] / result["seconds"],
    }


def hold(server, rig, clients, interval_ms, seconds):
    """Private bytes for a client that stays, and microseconds of the server for one keep-alive."""
    with Running(server, rig, interval_ms) as run:
        empty = run.private_bytes()
        run.tell(f"hold {clients} {INFLIGHT}")
        # Once round for everybody, so that what an answer leaves behind is there as well.
        run.tell(f"serve {interval_ms / 1000 + 0.2} {interval_ms}")
        full = run.private_bytes()
        result = run.timed(f"serve {seconds} {interval_ms}")
    return {
        "keepalive_us": result["server_s"] / result["round_trips"] * 1e6,
        "keepalives_per_s": result["round_trips"] / result["seconds"],
        "bytes_per_client": (full - empty) / clients,
        "keepalive_load_share": result["load_s"] / result["seconds"],
    }


def lateness(server, rig, clients, interval_ms, connects_per_s, seconds):
    """How late the clients are asked, in milliseconds, while others come and go beside them."""
    with Running(server, rig, interval_ms) as run:
        run.tell(f"hold {clients} {INFLIGHT}")
        run.tell(f"serve {interval_ms / 1000 + 0.2} {interval_ms}")
        storm = run.start_storm(connects_per_s, connects_per_s * (seconds + 2))
        result = run.timed(f"serve {seconds} {interval_ms}")
        storm.wait()
        if storm.returncode != 0:
            raise RuntimeError(f"{server.name}: the storm failed: {storm.stderr.read()}")
    return {
        "late_p50_ms": result["late_p50_ms"],
        "late_p99_ms": result["late_p99_ms"],
        "late_max_ms": result["late_max_ms"],
        "server_share": result["server_s"] / result["seconds"],
    }


def syscalls(server, rig, connections, clients, interval_ms, seconds):
    """Calls of the kernel for one connection, and for one keep-alive, by name."""
    with Running(server, rig) as run:
        run.tell(f"churn {max(connections // 10, 1)} {INFLIGHT}")
        with Traced(run) as trace:
            run.tell(f"churn {connections} {INFLIGHT}")
        connect = {name: count / connections for name, count in trace.counts.items()}
    with Running(server, rig, interval_ms) as run:
        run.tell(f"hold {clients} {INFLIGHT}")
        with Traced(run) as trace:
            trips = run.tell(f"serve {seconds} {interval_ms}")["round_trips"]
        keepalive = {name: count / trips for name, count in trace.counts.items()}
    return {"connect": connect, "keepalive": keepalive}


class Traced:
    """Counts a server's system calls while the 'with' lasts."""

    def __init__(self, run):
        self.file = run.folder / "strace"
        self.counts = {}
        self.process = subprocess.Popen(
            ["strace", "-c", "-f", "-qq", "-o", str(self.file), "-p", str(run.process.pid)]
        )
        status = pathlib.Path(f"/proc/{run.process.pid}/status")
        while "TracerPid:\t0\n" in status.read_text(encoding="ascii"):
            if self.process.poll() is not None:
                raise RuntimeError("strace cannot attach to the server")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        # "  % time     seconds  usecs/call     calls    errors syscall"
        for line in self.file.read_text(encoding="ascii").splitlines():
            words = line.split()
            if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
                self.counts[words[-1]] = int(words[3])
