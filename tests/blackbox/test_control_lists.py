"""GET /v1/clients: who is listed, in which order and in which pages, whoever comes and goes."""

import fnmatch
import itertools
import random
import threading
import time

import pytest

from control import Control
from harness import Client, Swarm, Witness, limit, wait_until

# Each character that an ID may have is here, and IDs that are prefixes of others.
CIDS = ["A", "Z", "_", "a", "a-1", "a.1", "a:1", "a@1", "aB", "a_1", "aa", "ab", "abc", "b", "db-1",
        "db-2", "nas", "web-1", "web-10", "web-2", "web-a", "web-b", "web", "we", "webb", "x" * 64,
        "0", "9", "web:1", "x" * 63]


@pytest.fixture
def known(start_server):
    """A server that knows CIDS, of whom web-1 and nas are connected; and how to ask it."""
    server = start_server()
    with Swarm(server, pipelined=True) as swarm:
        members = swarm.add_all(CIDS)
        swarm.settle()
        for member in members:
            if member.cid not in ("web-1", "nas"):
                swarm.drop(member)
        wait_until(lambda: sum(row["cstatus"] for row in server.rows().values()) == 2)
        yield Control(server)


def listed(control, **parameters):
    """The IDs of a list that is one page."""
    status, page = control.get("/v1/clients", **{"limit": 1000, **parameters})
    assert status == 200 and list(page) == ["clients", "next"] and page["next"] is None, page
    return [record["cid"] for record in page["clients"]]


def in_bytes(cids):
    return sorted(cids, key=str.encode)


def test_list_has_whole_records_in_the_order_of_bytes(known):
    assert listed(known) == in_bytes(CIDS)
    for record in known.get("/v1/clients", limit=1000)[1]["clients"]:
        assert record == known.client(record["cid"])


def test_status_says_who_is_listed(known):
    assert listed(known, status="connected") == ["nas", "web-1"]
    assert listed(known, status="disconnected") == in_bytes(set(CIDS) - {"nas", "web-1"})
    assert listed(known, status="connected", match="web*") == ["web-1"]


@pytest.mark.parametrize("pattern", [
    "*", "web-1", "web", "web*", "web-?", "web-??", "web-[0-9]", "web-[!0-9]", "web-[1a]", "[a-c]*",
    "[!a-c]*", "a[-.:@_]1", "a?1", "*1", "*-*", "?", "??", "**", "x*", "x" * 64, "x" * 63 + "?",
    "w*b-*1",
    "[w]eb", "we[b-b]*", "*b", "nobody", "zzz*", "0", "[0-9]", "@*", "_", "web-[]]", "A*", "Z*",
    "-*",
    "*" * 128, "[z-a]", "[", "web[", "a]", "w[e"])
def test_match_is_that_of_a_shell(known, pattern):
    expected = [cid for cid in in_bytes(CIDS) if fnmatch.fnmatchcase(cid, pattern)]
    assert listed(known, match=pattern) == expected
    got = [record["cid"] for page in known.pages(match=pattern, limit=2) for record in page]
    assert got == expected


def test_circumflex_negates_as_an_exclamation_mark_does(known):
    assert listed(known, match="web-[^0-9]") == listed(known, match="web-[!0-9]") == ["web-a",
        "web-b"]


@pytest.mark.parametrize("size", [1, 2, 7, len(CIDS) - 1, len(CIDS), len(CIDS) + 1, 1000])
def test_pages_are_full_and_next_is_the_last_of_those_that_have_a_successor(known, size):
    pages = known.pages(limit=size)
    cids = [[record["cid"] for record in page] for page in pages]
    assert list(itertools.chain(*cids)) == in_bytes(CIDS)
    assert all(len(page) == size for page in cids[:-1]) and 1 <= len(cids[-1]) <= size
    after = {}
    for number, page in enumerate(cids):
        answer = known.get("/v1/clients", limit=size, **after)[1]
        assert answer["next"] == (page[-1] if number < len(cids) - 1 else None)
        after = {"after": page[-1]}


def test_next_is_null_when_nobody_behind_it_would_be_listed(known):
    status, page = known.get("/v1/clients", status="connected", limit=2)
    assert [record["cid"] for record in page["clients"]] == ["nas",
        "web-1"] and page["next"] is None
    status, page = known.get("/v1/clients", status="connected", limit=1)
    assert [record["cid"] for record in page["clients"]] == ["nas"] and page["next"] == "nas"
    assert known.get("/v1/clients", match="db-*", limit=2)[1]["next"] is None


@pytest.fixture
def settled(start_server):
    """A server that knows CIDS, none of whom is connected any more; half of them have a round
    trip."""
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    for cids, round_trips in ((CIDS[::2], len(CIDS[::2])), (CIDS[1::2], 0)):
        with Swarm(server, pipelined=True) as swarm:
            swarm.add_all(cids)
            swarm.settle()
            swarm.pump(5, lambda: sum(control.client(cid)["rtt_ms"] is not None
                                      for cid in cids) >= round_trips)
        wait_until(lambda: control.get("/v1/status")[1]["connected"] == 0)
    return control


def in_order(records, key, descending):
    """By a field and then by ID; those without a value come last."""
    with_value = [record for record in records if record[key] is not None]
    without = [record for record in records if record[key] is None]
    if key == "cid":
        return sorted(records, key=lambda record: record["cid"].encode(), reverse=descending)
    with_value.sort(key=lambda record: record["cid"].encode())
    with_value.sort(key=lambda record: -record[key] if descending else record[key])
    return with_value + without


@pytest.mark.parametrize("key", ["cid", "sid", "since", "last_seen", "rtt_ms"])
def test_sort_is_by_a_field_then_by_id_in_both_directions(settled, key):
    everybody = settled.get("/v1/clients", limit=1000)[1]["clients"]
    assert len(everybody) == len(CIDS)
    if key == "rtt_ms":
        assert {record[key] is None for record in everybody} == {True, False}
    for sort in (key, f"-{key}"):
        for size in (1, 7, 1000):
            for more in ({}, {"match": "web*"}, {"status": "disconnected", "match": "*[a1]"}):
                pages = settled.pages(sort=sort, limit=size, **more)
                got = [record for page in pages for record in page]
                wanted = [record for record in everybody
                          if fnmatch.fnmatchcase(record["cid"], more.get("match", "*"))]
                assert got == in_order(wanted, key, sort.startswith("-"))
                assert all(len(page) == size for page in pages[:-1])
        assert settled.get("/v1/clients", sort=sort, status="connected")[1] == {"clients": [],
                                                                                "next": None}


def test_list_that_is_sorted_by_id_is_the_usual_one(known):
    assert known.get("/v1/clients", sort="cid", limit=3) == known.get("/v1/clients", limit=3)
    page = known.get("/v1/clients", sort="cid", limit=3, after="a-1")[1]
    assert page["next"] == page["clients"][-1]["cid"]


def test_limit_is_100_when_it_is_not_given(start_server):
    server = start_server()
    with Swarm(server, pipelined=True) as swarm:
        swarm.add_all(f"web-{n:03}" for n in range(101))
        swarm.settle()
        status, page = Control(server).get("/v1/clients")
        assert (len(page["clients"]), page["next"]) == (100, "web-099")
        status, page = Control(server).get("/v1/clients", after=page["next"])
        assert ([record["cid"] for record in page["clients"]], page["next"]) == (["web-100"], None)


@pytest.mark.parametrize("after", ["-", "0a", "a-2", "aaaa", "web-11", "nobody", "zzzz", "z" * 64,
                                   "."])
def test_after_may_be_the_id_of_nobody(known, after):
    assert listed(known, after=after) == [cid for cid in in_bytes(CIDS)
                                          if cid.encode() > after.encode()]


def test_after_and_match_bound_each_other(known):
    assert listed(known, match="web-*", after="web-10") == ["web-2", "web-a", "web-b"]
    assert listed(known, match="web-*", after="A") == ["web-1", "web-10", "web-2", "web-a", "web-b"]
    assert listed(known, match="web-*", after="x") == []
    assert listed(known, match="db-*", after="web-1") == []


@pytest.mark.parametrize("query,words", [
    ("limit=0", ["limit", "1000"]), ("limit=1001", ["limit"]), ("limit=-1", ["limit"]),
    ("limit=", ["limit"]),
    ("limit=1.5", ["limit"]), ("limit=%201", ["limit"]), ("limit=ten", ["limit", "ten"]),
    ("limit=0x10", ["limit"]),
    ("limit=99999999999999999999999", ["limit"]), ("limit=18446744073709551617", ["limit"]),
    ("limit", ["limit"]),
    ("limit=1&limit=1", ["limit", "twice"]), ("limit=1&after=a&limit=2", ["limit", "twice"]),
    ("status=", ["status"]), ("status=up", ["status", "connected", "disconnected"]),
    ("status=Connected", ["status"]),
    ("status=connected&status=disconnected", ["status"]), ("status", ["status"]),
    ("match=", ["match"]), ("match=a%2Cb", ["match"]), ("match=a%20b", ["match"]),
    ("match=" + "*" * 129, ["match"]),
    ("match=" + "x" * 65, ["match"]), ("match=%ff", ["match"]), ("match=a%5C*", ["match"]),
    ("match=%7Ba,b%7D", ["match"]),
    ("after=", ["after"]), ("after=a*", ["after"]), ("after=" + "x" * 65, ["after"]),
    ("after=a%20b", ["after"]),
    ("after=%0a", ["after"]), ("colour=blue", ["colour", "limit"]), ("limit%00=1", []),
    ("limit=1%00", []),
    ("match=a%00*", []), ("=1", []), ("&", []), ("Limit=1", ["Limit"]), ("limi=1", []),
    ("imit=1", []),
    ("sort=", ["sort", "last_seen"]), ("sort=colour", ["sort", "colour"]), ("sort=--cid", ["sort"]),
    ("sort=Sid", ["sort"]), ("sort=-", ["sort"]), ("sort=sid&sort=sid", ["sort", "twice"]),
    ("sort=sid&after=web-1", ["after", "order"]), ("sort=-cid&after=web-1", ["after", "order"]),
    ("sort=sid&after=-sid~1~a", ["after"]), ("sort=sid&after=since~1~a", ["after"]),
    ("sort=cid&after=cid~1~a", ["after"]), ("sort=sid&after=sid~x~a", ["after"]),
    ("sort=sid&after=sid~1~", ["after"]), ("sort=sid&after=sid~1~" + "x" * 65, ["after"]),
    ("limit%20after=1", []), ("wave=1", []), ("state=told", []),
    ("a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9&j=10", []),
    ("limit=1&status=connected&match=a&after=a&b=1", []), ("x" * 4000 + "=1", [])])
def test_parameter_that_makes_no_sense_is_400(server, query, words):
    answer = Control(server).request("GET", f"/v1/clients?{query}")
    assert answer.status == 400, answer.body
    for word in words:
        assert word in answer.json["error"], answer.json


def test_list_of_nobody(server):
    assert Control(server).get("/v1/clients") == (200, {"clients": [], "next": None})
    assert Control(server).get("/v1/clients?") == (200, {"clients": [], "next": None})
    with Client(server) as client:
        client.authenticate()
        assert listed(Control(server)) == []


def test_walk_sees_each_steady_client_once_whoever_comes_and_goes(start_server):
    """3000 are known, 300 of them connected; others with IDs between theirs come and go."""
    server = start_server({"keepalive": {"interval": "200ms"}})
    control = Control(server)
    steady = [f"web-{n:04}" for n in range(3000)]
    up = steady[::10]
    for begin in range(0, 3000, 1000):
        with Swarm(server, pipelined=True) as swarm:
            swarm.add_all(steady[begin:begin + 1000])
            swarm.settle()
            assert swarm.count("connected") == 1000
    wait_until(lambda: control.get("/v1/status")[1]["connected"] == 0)
    stop = threading.Event()
    churned = 0

    def churn():
        nonlocal churned
        chance = random.Random(7)
        asks = Control(server)
        while not stop.is_set():
            cids = [f"web-{chance.randrange(3000):04}x{chance.randrange(100)}" for _ in range(20)]
            with Swarm(server, pipelined=True) as swarm:
                swarm.add_all(set(cids))
                swarm.settle()
            for cid in cids[:10]:
                asks.delete(f"/v1/clients/{cid}")
            churned += 20

    with Swarm(server) as swarm, Witness(server) as witness:
        swarm.add_all(up)
        swarm.settle()
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            deadline = time.monotonic() + limit(60)
            for size, parameters, expected in (
                    (1000, {}, steady), (61, {}, steady), (7, {"status": "connected"}, up),
                    (100, {"match": "web-1*"}, steady[1000:2000]),
                    (13, {"match": "web-*[05]"}, [cid for cid in steady if cid[-1] in "05"])):
                before = churned
                expected = dict.fromkeys(expected)
                while True:
                    pages = control.pages(limit=size, **parameters)
                    cids = [record["cid"] for page in pages for record in page]
                    assert cids == sorted(set(cids)), "in order, and each once"
                    assert [cid for cid in cids if cid in expected] == list(expected)
                    assert all(len(page) == size for page in pages[:-1])
                    swarm.pump(0)
                    if churned > before:
                        break
                    assert time.monotonic() < deadline
        finally:
            stop.set()
            thread.join()
        witness.check(max_gap=1.0)
        assert churned > 0
