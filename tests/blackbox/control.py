"""
What tests say to the control API (docs/control.md), as its users would: over the unix socket, or
over TCP with a token.

  Control      requests, each on a connection of its own: status, json = control.get("/v1/status").
  EventStream  an open GET /v1/events. Made by control.events().
  Raw          a connection on which a test says what it wants, byte by byte. Made by control.raw().

Every answer is held to what is true of all of them: JSON where it says so, no CORS header, errors
in the one form that errors have.
"""

import json
import pathlib
import socket
import time
import urllib.parse

import pytest

from harness import Server, limit, write_secret

TOKEN = "open sesame"


def http_config(folder, token=TOKEN, http="127.0.0.1:0", **more):
    """The section [control] of a server that is asked over TCP as well; writes the token's file."""
    write_secret(pathlib.Path(folder) / "token", token + "\n")
    return {"control": {"http": http, "token_file": "token", **more}}


class Answer:
    """One answer of the server."""

    def __init__(self, status, headers, body, version="HTTP/1.1"):
        self.status = status
        self.headers = headers  # [(name in small letters, value)]
        self.body = body
        self.version = version

    def header(self, name):
        """The value of a header, which may stand there once; None if it does not."""
        values = [value for other, value in self.headers if other == name.lower()]
        assert len(values) <= 1, f"{name} stands there more than once: {values}"
        return values[0] if values else None

    @property
    def json(self):
        return json.loads(self.body)

    def check(self):
        """What is true of every answer. Returns it."""
        cors = [name for name, _ in self.headers if name.startswith("access-control-")]
        assert not cors, f"no web page elsewhere shall read anything: {cors}"
        assert (self.header("allow") is not None) == (self.status == 405)
        if self.header("content-type") == "application/json" and self.body:
            content = self.json
            if self.status >= 400 and "ready" not in content:
                assert isinstance(content["error"], str) and content["error"]
                assert set(content) <= {"error", "errors"}
        return self


class Raw:
    """A connection in the foreground that knows where an answer ends, and little else of HTTP."""

    def __init__(self, control, timeout=5.0):
        self.sock = socket.socket(control.family, socket.SOCK_STREAM)
        # Without a timeout, which would make it fail at once where a unix socket's queue is full.
        self.sock.connect(control.address)
        self.sock.settimeout(limit(timeout))
        self.control = control
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, line, headers=(), body=None):
        """
        Sends a request: "GET /v1/status", and HTTP/1.1 is understood. Host and token are added
        unless the headers, lines such as "Host: x", have them; None among them keeps both out.
        """
        names = {header.split(":")[0].lower() for header in headers if header}
        more = [header for header in headers if header is not None]
        if None not in headers:
            if "host" not in names:
                more.insert(0, f"Host: {self.control.host}")
            if "authorization" not in names and self.control.token:
                more.append(f"Authorization: Bearer {self.control.token}")
        if body is not None and "transfer-encoding" not in names and "content-length" not in names:
            more.append(f"Content-Length: {len(body)}")
        version = "" if line.endswith(("HTTP/1.0", "HTTP/1.1")) else " HTTP/1.1"
        text = f"{line}{version}\r\n" + "".join(f"{header}\r\n" for header in more) + "\r\n"
        self.send(text.encode("latin-1") + (body or b""))
        return self

    def fill(self, timeout=5.0):
        """Reads something more. False at the end of the stream, TimeoutError when nothing comes."""
        self.sock.settimeout(max(0.001, timeout))
        chunk = self.sock.recv(65536)
        self.buffer += chunk
        return bool(chunk)

    def _until(self, done, end):
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"no answer, only {self.buffer[:200]!r}")
            if not self.fill(end - time.monotonic()):
                raise EOFError(f"the stream ended after {self.buffer[:200]!r}")

    def take(self, count, end):
        self._until(lambda: len(self.buffer) >= count, end)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def take_line(self, end):
        self._until(lambda: b"\r\n" in self.buffer, end)
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def head(self, timeout=5.0):
        """The status line and the headers of the next answer."""
        end = time.monotonic() + limit(timeout)
        version, status, _ = self.take_line(end).decode("latin-1").split(" ", 2)
        headers = []
        while line := self.take_line(end).decode("latin-1"):
            name, value = line.split(":", 1)
            headers.append((name.lower(), value.strip()))
        return Answer(int(status), headers, b"", version)

    def answer(self, timeout=5.0, to_head=False):
        """The next answer, whole."""
        end = time.monotonic() + limit(timeout)
        answer = self.head(timeout)
        if answer.status == 100:
            answer = self.head(timeout)
        if to_head or answer.status == 304: # which say how long a body would be
            return answer.check()
        if answer.header("transfer-encoding") == "chunked":
            while size := int(self.take_line(end), 16):
                answer.body += self.take(size, end)
                assert self.take(2, end) == b"\r\n"
            assert self.take_line(end) == b""
        elif (length := answer.header("content-length")) is not None:
            answer.body = self.take(int(length), end)
        else:
            self.read_to_end(timeout)
            answer.body, self.buffer = self.buffer, b""
        return answer.check()

    def read_to_end(self, timeout=5.0):
        """Whatever comes until the server closes."""
        end = time.monotonic() + limit(timeout)
        while True:
            if time.monotonic() > end:
                raise TimeoutError(f"the connection stays open after {self.buffer[:200]!r}")
            try:
                if not self.fill(end - time.monotonic()):
                    return self.buffer
            except ConnectionResetError:
                return self.buffer

    def expect_close(self, timeout=5.0):
        """Nothing more comes, and the connection ends."""
        assert self.read_to_end(timeout) == b""


class Event:
    """One event of a stream."""

    def __init__(self, fields, at):
        self.id = int(fields["id"])
        self.kind = fields["event"]
        self.data = json.loads(fields["data"])
        self.at = at  # monotonic

    def __repr__(self):
        return f"<{self.id} {self.kind} {self.data}>"


class EventStream:
    """The events as they come. Its making waits until the stream has begun."""

    def __init__(self, control, last_id=None, rcvbuf=None):
        headers = [] if last_id is None else [f"Last-Event-ID: {last_id}"]
        self.raw = Raw(control)
        if rcvbuf:
            self.raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.raw.ask("GET /v1/events", headers)
        head = self.raw.head()
        if head.status != 200:
            head.body = self.raw.take(int(head.header("content-length")),
                                      time.monotonic() + limit(5))
            self.raw.close()
            raise RefusedStream(head.check())
        assert head.header("content-type") == "text/event-stream"
        self.comments = []  # when they came
        self.text = b""
        self._field_lines(limit(5))
        assert len(self.comments) == 1, "a stream begins with a comment"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.raw.close()

    def _field_lines(self, seconds):
        """The lines of what comes next, up to a blank one; counts comments."""
        end = time.monotonic() + seconds
        while b"\n\n" not in self.text:
            size = int(self.raw.take_line(end), 16)
            if size == 0:
                raise EOFError("the stream of events ended")
            self.text += self.raw.take(size, end)
            assert self.raw.take(2, end) == b"\r\n"
        block, self.text = self.text.split(b"\n\n", 1)
        lines = block.decode().split("\n")
        self.comments += [time.monotonic()] * sum(line.startswith(":") for line in lines)
        return [line for line in lines if not line.startswith(":")]

    def next(self, timeout=5.0, scaled=True):
        """The next event; TimeoutError when none comes."""
        end = time.monotonic() + (limit(timeout) if scaled else timeout)
        while True:
            lines = self._field_lines(end - time.monotonic())
            if lines:
                fields = dict(line.split(": ", 1) for line in lines)
                assert set(fields) == {"id", "event", "data"}, fields
                return Event(fields, time.monotonic())

    def expect(self, kind, timeout=5.0, **data):
        """The next event, which has to be of that kind and say that."""
        event = self.next(timeout)
        assert (event.kind, {key: event.data.get(key) for key in data}) == (kind, data), event
        return event

    def wait(self, kind, timeout=5.0, **data):
        """The first event of that kind that says that; earlier ones are gone then."""
        end = time.monotonic() + limit(timeout)
        while True:
            event = self.next(end - time.monotonic(), scaled=False)
            if event.kind == kind and all(event.data.get(key) == data[key] for key in data):
                return event

    def expect_silence(self, seconds):
        with pytest.raises(TimeoutError):
            event = self.next(seconds, scaled=False)
            pytest.fail(f"no event was expected, {event} came")


class RefusedStream(Exception):
    """The server did not want to stream; answer says why."""

    def __init__(self, answer):
        super().__init__(f"{answer.status} {answer.body!r}")
        self.answer = answer


class Control:
    """
    The control API of a server: over its unix socket, or over TCP with tcp=True, with its own token
    unless another one is given (None: without).
    """

    def __init__(self, server, tcp=False, token=TOKEN):
        assert isinstance(server, Server)
        if tcp:
            found = server.wait_log(r'\bcontrol\b.*\bhttp=(?:"?)([0-9.:\[\]]+)')
            host, port = found.group(1).rsplit(":", 1)
            self.address = (host.strip("[]"), int(port))
            self.family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
            self.host = found.group(1)
            self.token = token
        else:
            name = (server.sections or {}).get("control", {}).get("socket", "cliser.sock")
            self.address = str(server.folder / name)
            self.family = socket.AF_UNIX
            self.host = "localhost"
            self.token = None

    @property
    def port(self):
        return self.address[1]

    def raw(self, timeout=5.0):
        return Raw(self, timeout)

    def request(self, method, path, body=None, headers=(), timeout=10.0):
        """An Answer. A body that is no bytes goes as JSON."""
        headers = list(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if method in ("POST", "DELETE") and not any(
                header and header.lower().startswith("content-type:") for header in headers):
            headers.append("Content-Type: application/json")
        if method == "POST" and body is None:
            body = b""
        with self.raw() as raw:
            raw.ask(f"{method} {path}", headers, body)
            return raw.answer(timeout, to_head=method == "HEAD")

    def get(self, path, **parameters):
        """status, json. Parameters are escaped."""
        if parameters:
            path += "?" + urllib.parse.urlencode(parameters)
        answer = self.request("GET", path)
        return answer.status, answer.json

    def post(self, path, body=None):
        answer = self.request("POST", path, body)
        return answer.status, answer.json

    def delete(self, path):
        answer = self.request("DELETE", path)
        return answer.status, answer.json

    def client(self, cid):
        """The record of a client that is known."""
        status, record = self.get(f"/v1/clients/{cid}")
        assert status == 200, record
        return record

    def pages(self, path="/v1/clients", what="clients", **parameters):
        """Everything of a list, page by page: a list of pages."""
        pages = []
        after = {}
        while True:
            status, page = self.get(path, **parameters, **after)
            assert status == 200 and set(page) == {what, "next"}, page
            pages.append(page[what])
            if page["next"] is None:
                return pages
            after = {"after": page["next"]}

    def events(self, last_id=None, rcvbuf=None):
        return EventStream(self, last_id, rcvbuf)

    def metrics(self):
        """The samples of /metrics as {series: number}."""
        answer = self.request("GET", "/metrics")
        assert answer.status == 200
        samples = (line.rsplit(" ", 1) for line in answer.body.decode().splitlines()
                   if line and not line.startswith("#"))
        return {series: float(value) for series, value in samples}
