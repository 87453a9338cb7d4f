"""
A server that is killed in the middle of a crowd: whoever has read its 140 is known to the next
server, with the sid it had, disconnected.
"""

import os
import random
import time

from harness import SCALE, Swarm, limit, reading

ROUNDS = int(os.environ.get("CLISER_KILL_ROUNDS", "200"))
CROWD = 60


def add_some(swarm, crowd, dice):
    """A few more of the crowd, each of them some steps on its way."""
    for _ in range(dice.randrange(1, 12)):
        if crowd:
            swarm.add(crowd.pop())
    for _ in range(dice.randrange(3)):
        swarm.pump(0)


def test_kill_9_under_connecting_clients_loses_nobody_who_read_140(start_server, folder):
    dice = random.Random()
    sids = {}  # of everyone who ever read 140, as the first look found it
    known = []
    promised = 0
    in_the_middle = 0
    overrides = {"registry": {"duplicate_id": "takeover"}}
    start = time.monotonic()

    server = start_server(overrides, folder=folder)
    for round_ in range(ROUNDS):
        fresh = [f"client-{round_}-{n}" for n in range(CROWD // 2)]
        again = dice.sample(known, min(len(known), CROWD - len(fresh)))
        crowd = fresh + again
        dice.shuffle(crowd)
        with Swarm(server, pipelined=dice.random() < 0.5) as swarm:
            # They come in small crowds one upon the other, so that the server is found with
            # clients in every step, and has committed many times and not once for all.
            enough = dice.randrange(1, len(crowd))
            while crowd and swarm.count("connected") < enough:
                add_some(swarm, crowd, dice)
                # On a busy machine all could be there before the first is served.
                on_their_way = dice.randrange(20)
                swarm.pump(5, lambda: swarm.count("connecting", "open") <= on_their_way)
            add_some(swarm, crowd, dice)
            server.kill()
            # What the kernel has already delivered, the clients read.
            swarm.pump(limit(5), lambda: not swarm.selector.get_map(), scaled=False)
            told = [member.cid for member in swarm.members if member.was_connected]
        promised += len(told)
        in_the_middle += 0 < len(told) < len(swarm.members)

        server = start_server(overrides, folder=folder)
        with reading(server.db) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            table = {cid: (sid, cstatus) for cid, sid, cstatus in
                     connection.execute("SELECT cid, sid, cstatus FROM clients")}
        lost = [cid for cid in told if cid not in table]
        assert not lost, \
            f"round {round_}: {len(lost)} of {len(told)} that read 140 are lost: {lost[:5]}"
        for cid in told:
            if cid not in sids:
                sids[cid] = table[cid][0]
                known.append(cid)
        moved = {cid: (sid, table.get(cid)) for cid, sid in sids.items()
                 if cid not in table or table[cid][0] != sid}
        assert not moved, f"round {round_}: lost or renumbered: {dict(list(moved.items())[:5])}"
        assert not any(cstatus for _, cstatus in table.values()), f"round {round_}: still connected"
        assert len({sid for sid, _ in table.values()}) == len(table)

    print(f"\n{ROUNDS} rounds of kill -9, {in_the_middle} of them in the middle of the crowd; "
          f"{promised} times a client had read 140, nobody lost; "
          f"{len(sids)} clients with their sids, {time.monotonic() - start:.1f} s")
    # Rounds that all ended too early or too late would prove nothing.
    assert in_the_middle >= ROUNDS // 2 or SCALE > 1
    assert promised >= ROUNDS
