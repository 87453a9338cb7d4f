"""
A control API that says exactly what a test tells it, on a unix socket or a TCP port.

It follows docs/control.md and keeps its clients in memory. Tests change what it knows while it
runs, and look at what it was asked:

  with FakeControl(path) as server:
      server.add("web-1")
      …                                    # run cliserctl
      assert server.asked[-1] == ("GET", "/v1/clients/web-1", None)
"""

import contextlib
import fnmatch
import http.server
import json
import os
import socket
import socketserver
import threading
import time
import urllib.parse

TOKEN = "s3cret-token"


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, address, handler):
        unix = isinstance(address, str)
        self.address_family = socket.AF_UNIX if unix else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request, client_address):
        pass  # a reader that goes away is part of the tests


class FakeControl:
    """address is a path, or (host, port) for TCP with a token."""

    def __init__(self, address):
        self.address = str(address) if not isinstance(address, tuple) else address
        self.clients = {}
        self.asked = []
        self.status = {"version": "0.1.0", "node": "vm", "uptime_s": 3700, "ready": True,
                       "connected": 15000, "registered": 15210, "pending": 3,
                       "penalised_sources": 0, "max_clients": 1000000,
                       "store": {"kind": "sqlite", "healthy": True},
                       "keepalive": {"interval_s": 10, "misses": 3, "dead_client_max_s": 40},
                       "shutdown": "none"}
        self.order = {"state": "none"}
        self.script = []          # functions that change the order, one for each time it is asked
        self.targets = []
        self.answers = {}         # (method, path): (status, object or bytes), instead of ours
        self.delays = {}          # (method, path): seconds
        self.durable = True
        self.events = []          # (id, event, data)
        self.last_event_ids = []
        self.streams = 0
        self.drop_streams = False
        self.news = threading.Condition()
        self.connections = []
        self._server = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        owner = self
        self._stopped = False

        class Handler(_Handler):
            control = owner

        if isinstance(self.address, str):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)
        self._server = _Server(self.address, Handler)
        if not isinstance(self.address, str):
            self.address = self._server.server_address
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,),
                                        daemon=True)
        self._thread.start()

    def stop(self):
        """As a server that ends: nobody answers, streams break."""
        self._stopped = True
        with self.news:
            self.news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if isinstance(self.address, str):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)

    @property
    def url(self):
        return "http://%s:%d" % self.address

    def add(self, cid, connected=True, **fields):
        record = {"sid": len(self.clients) + 1, "cid": cid, "cip": "127.0.0.1", "cport": 56112,
                  "cstatus": connected, "since": int(time.time()) - 200,
                  "last_seen": int(time.time()) - 4, "rtt_ms": 0.214 if connected else None,
                  "reason": "" if connected else "timed_out", "node": "vm",
                  "credential": "auth"}
        record.update(fields)
        self.clients[cid] = record

    def emit(self, event, **data):
        with self.news:
            self.events.append((len(self.events) + 1, event, data))
            self.news.notify_all()

    def paths(self, method=None):
        return [path for asked, path, _ in self.asked if method in (None, asked)]

    def matching(self, patterns, connected=None):
        return sorted(cid for cid, record in self.clients.items()
                      if any(fnmatch.fnmatchcase(cid, pattern) for pattern in patterns)
                      and (connected is None or record["cstatus"] == connected))

    # Orders.

    def plan(self, body):
        waves, seen = [], set()
        for patterns in body["waves"]:
            ids = [cid for cid in self.matching(patterns, True) if cid not in seen]
            seen.update(ids)
            waves.append({"match": patterns, "clients": ids, "count": len(ids)})
        return {"dry_run": True, "waves": waves, "count": len(seen)}

    def give(self, body):
        plan = self.plan(body)
        hold = body.get("hold", "0s")
        self.order = {
            "id": 3, "state": "running", "by": "uid 0", "created": int(time.time()),
            "ended": None, "durable": self.durable, "grace": body.get("grace", "60s"),
            "hold": hold, "hold_until": None if hold == "0s" else int(time.time()) + 900,
            "wave": 1, "waves": [], "totals": {}}
        for i, wave in enumerate(plan["waves"]):
            self.order["waves"].append(
                {"match": wave["match"], "state": "pending" if i else "running",
                 "started": None if i else int(time.time()), "ended": None,
                 "targets": wave["count"] + 2, "pending": wave["count"] if i else 0,
                 "told": 0 if i else wave["count"], "acknowledged": 0, "gone": 0,
                 "still_up": 0 if i else wave["count"], "not_connected": 2})
        self.count()

    def count(self):
        keys = ("targets", "pending", "told", "acknowledged", "gone", "still_up", "not_connected")
        self.order["totals"] = {key: sum(wave[key] for wave in self.order["waves"])
                                for key in keys}

    def wave_ends(self, number, still_up=0):
        """Wave number (from 1) is over, the next one starts; behind the last the order is done."""
        wave = self.order["waves"][number - 1]
        told = wave["told"]
        wave.update(state="done", ended=int(time.time()), pending=0, acknowledged=told,
                    gone=told - still_up, still_up=still_up)
        if number < len(self.order["waves"]):
            following = self.order["waves"][number]
            following.update(state="running", started=int(time.time()), told=following["pending"],
                             still_up=following["pending"], pending=0)
            self.order["wave"] = number + 1
        else:
            hold = self.order["hold_until"]
            self.order.update(state="holding" if hold else "done",
                              ended=None if hold else int(time.time()))
        self.count()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control = None

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"

    def setup(self):
        super().setup()
        self.connection.settimeout(30)
        self.control.connections.append(self.connection)

    def do_GET(self):
        self.handle_one("GET")

    def do_POST(self):
        self.handle_one("POST")

    def do_DELETE(self):
        self.handle_one("DELETE")

    def handle_one(self, method):
        control = self.control
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw else None
        url = urllib.parse.urlsplit(self.path)
        control.asked.append((method, self.path, body))
        # What a web server would have made of it, had the client escaped too little.
        parts = [urllib.parse.unquote(part) for part in url.path.split("/")[1:]]
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True,
                                            strict_parsing=bool(url.query)))
        if not isinstance(control.address, str):
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer(401, {"error": "no token, or the wrong one"})
            if method != "GET" and self.headers.get("Content-Type") != "application/json":
                return self.answer(415, {"error": "Content-Type must be application/json"})
        time.sleep(control.delays.get((method, url.path), 0))
        if (method, url.path) in control.answers:
            return self.answer(*control.answers[method, url.path])
        route = (method, *parts[1:2], *("ID" if i == 0 else part
                                        for i, part in enumerate(parts[2:])))
        work = {
            ("GET", "status"): self.get_status,
            ("GET", "clients"): self.get_clients,
            ("GET", "clients", "ID"): self.get_client,
            ("DELETE", "clients", "ID"): self.delete_client,
            ("POST", "clients", "ID", "ping"): self.ping,
            ("POST", "clients", "ID", "disconnect"): self.disconnect,
            ("GET", "shutdown"): self.get_shutdown,
            ("POST", "shutdown"): self.post_shutdown,
            ("DELETE", "shutdown"): self.delete_shutdown,
            ("GET", "shutdown", "ID"): self.get_targets,
            ("GET", "events"): self.get_events,
            ("POST", "reload"): self.reload,
        }.get(route)
        if not work or parts[0] != "v1":
            return self.answer(404, {"error": f"no such path: {url.path}"})
        return work(parts[2] if len(parts) > 2 else None, query, body)

    def answer(self, status, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def get_status(self, *_):
        self.answer(200, self.control.status)

    def page(self, ids, query):
        limit = int(query.get("limit", 100))
        assert 1 <= limit <= 1000
        ids = [cid for cid in ids if cid > query.get("after", "")]
        return ids[:limit], ids[limit - 1] if len(ids) > limit else None

    def get_clients(self, _, query, __):
        wanted = {"connected": True, "disconnected": False}.get(query.get("status"))
        assert set(query) <= {"status", "match", "limit", "after"}
        ids = self.control.matching([query.get("match", "*")], wanted)
        ids, following = self.page(ids, query)
        self.answer(200, {"clients": [self.control.clients[cid] for cid in ids],
                          "next": following})

    def known(self, cid):
        record = self.control.clients.get(cid)
        if not record:
            self.answer(404, {"error": f"no client {cid}"})
        return record

    def get_client(self, cid, *_):
        if record := self.known(cid):
            self.answer(200, record)

    def delete_client(self, cid, *_):
        if record := self.known(cid):
            if record["cstatus"]:
                return self.answer(409, {"error": f"{cid} is connected; disconnect it first"})
            del self.control.clients[cid]
            self.answer(200, {"forgotten": cid})

    def ping(self, cid, *_):
        if record := self.known(cid):
            if not record["cstatus"]:
                return self.answer(409, {"error": f"{cid} is not connected"})
            self.answer(200, {"rtt_ms": 1.25})

    def disconnect(self, cid, *_):
        if record := self.known(cid):
            if not record["cstatus"]:
                return self.answer(409, {"error": f"{cid} is not connected"})
            record["cstatus"] = False
            self.answer(200, {"disconnected": cid})

    def get_shutdown(self, *_):
        if self.control.script:
            step = self.control.script.pop(0)
            if step:
                step()
        self.answer(200, self.control.order)

    def post_shutdown(self, _, __, body):
        assert set(body) <= {"waves", "grace", "hold", "dry_run"}
        if body.get("dry_run"):
            return self.answer(200, self.control.plan(body))
        if self.control.order["state"] in ("running", "holding"):
            return self.answer(409, {"error": "order 2 is running; cancel it first"})
        self.control.give(body)
        self.answer(202, self.control.order)

    def delete_shutdown(self, *_):
        if self.control.order["state"] not in ("running", "holding"):
            return self.answer(404, {"error": "no order is running or holding"})
        self.control.order.update(state="cancelled", ended=int(time.time()))
        self.answer(200, self.control.order)

    def get_targets(self, _, query, __):
        assert set(query) <= {"state", "wave", "limit", "after"}
        targets = {target["cid"]: target for target in self.control.targets
                   if query.get("state") in (None, target["state"])}
        ids, following = self.page(sorted(targets), query)
        self.answer(200, {"targets": [targets[cid] for cid in ids], "next": following})

    def reload(self, *_):
        self.answer(200, {"reloaded": True, "restart_needed": ["server.listen"]})

    def get_events(self, *_):
        control = self.control
        last = self.headers.get("Last-Event-ID")
        control.last_event_ids.append(last)
        at = int(last) if last else len(control.events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        self.wfile.flush()
        control.streams += 1
        try:
            while not control._stopped and not control.drop_streams:
                with control.news:
                    if at >= len(control.events):
                        control.news.wait(0.05)
                    new, at = control.events[at:], len(control.events)
                for number, event, data in new:
                    text = data if isinstance(data, str) else json.dumps(data)
                    self.wfile.write(f"id: {number}\nevent: {event}\ndata: {text}\n\n".encode())
                self.wfile.flush()
        finally:
            control.streams -= 1
            self.close_connection = True
