#!/usr/bin/python3
"""
The witnesses of a fault: witnesses.py HOST PORT COUNT PREFIX. Says "ready" when all are connected,
answers keep-alives until its standard input ends, and then prints what has become of them.
"""

import json
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))

import harness  # noqa: E402


def gaps(member, end):
    times = [member.was_connected, *member.keep_alives(), end]
    return [later - earlier for earlier, later in zip(times, times[1:])]


def main():
    host, port, count, prefix = sys.argv[1:]
    swarm = harness.Swarm((host, int(port)))
    swarm.add_all(f"{prefix}-{number}" for number in range(int(count)))
    swarm.settle(30)
    if swarm.count("connected") != int(count):
        sys.exit("not all witnesses could connect")
    print("ready", flush=True)

    done = threading.Event()
    threading.Thread(target=lambda: (os.read(0, 1), done.set()), daemon=True).start()
    failure = None
    try:
        while not done.is_set():
            swarm.pump(0.1, scaled=False)
    except BaseException as error:  # a line that should not have come
        failure = f"{type(error).__name__}: {error}"
    end = time.monotonic()
    print(json.dumps({
        "failure": failure,
        "lost": [f"{member.cid}: {member.state} {member.code} {member.error}"
                 for member in swarm.members if member.state != "connected"],
        "max_gap_s": max((gap for member in swarm.members for gap in gaps(member, end)),
                         default=0.0),
    }))


if __name__ == "__main__":
    main()
