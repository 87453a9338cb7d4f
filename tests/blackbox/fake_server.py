"""
A cliser server that does exactly what a test tells it, right or wrong.

  with FakeServer() as server:            # 127.0.0.1 and a free port; see there for others
      session = server.accept()
      session.shake_hands("web-1")        # 110 to 140, checking what the client answers
      session.send("130: shutdown sys")
      session.expect(b"130\\n")

Everything is in the foreground, so a test reads as a transcript. Waiting has a deadline; expect()
compares bytes, not lines, because a client's answers are specified to the byte.
"""

import contextlib
import os
import socket
import ssl
import struct
import time

from harness import limit

PASSWORD = "s3cret pass"


class FakeServer:
    """Listens. address=("::1", 0) for IPv6, a path for a unix socket; tls, an SSLContext."""

    def __init__(self, address=("127.0.0.1", 0), password=PASSWORD, tls=None):
        self.password = password
        self.tls = tls
        self.sessions = []
        if isinstance(address, str):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(address)
        self.sock.listen(64)
        if family == socket.AF_UNIX:
            self.name = f"unix:{address}"
        else:
            host, self.port = self.sock.getsockname()[:2]
            self.name = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for session in self.sessions:
            session.close()
        self.close()

    def accept(self, seconds=5.0):
        """Waits for the next client."""
        self.sock.settimeout(limit(seconds))
        try:
            sock, _ = self.sock.accept()
        except socket.timeout:
            raise AssertionError(f"no client came within {limit(seconds):.1f} s") from None
        if self.tls:
            sock.settimeout(limit(seconds))
            sock = self.tls.wrap_socket(sock, server_side=True)
        session = Session(sock, self.password)
        self.sessions.append(session)
        return session

    def accept_failing(self, seconds=5.0):
        """The next client, whose TLS handshake fails: what Python's ssl says of it."""
        with contextlib.suppress(ssl.SSLEOFError):
            try:
                self.accept(seconds)
            except ssl.SSLError as error:
                return str(error)
            except ConnectionResetError:
                return "reset"
            raise AssertionError("the handshake succeeded")
        return "closed"

    def accept_nobody(self, seconds):
        """For that long, nobody may come."""
        self.sock.settimeout(seconds)
        with contextlib.suppress(socket.timeout):
            self.sock.accept()
            raise AssertionError("a client came")

    def connected(self, cid, seconds=5.0):
        """Accepts the next client and takes it to 140."""
        session = self.accept(seconds)
        session.shake_hands(cid)
        return session

    def close(self):
        """From now on connections are refused."""
        self.sock.close()


class Session:
    """One client. received holds every byte that came, for tests that want to look back."""

    def __init__(self, sock, password):
        self.sock = sock
        self.password = password
        self.received = b""
        self._checked = 0
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *lines):
        """Sends the lines with CRLF behind each, in one segment. Bytes go as they are."""
        self.sock.sendall(b"".join(line if isinstance(line, bytes) else line.encode() + b"\r\n"
                                   for line in lines))

    def drip(self, data):
        """Sends byte by byte."""
        for i in range(len(data)):
            self.sock.sendall(data[i:i + 1])
            time.sleep(0.001)

    def expect(self, wanted, seconds=5.0):
        """The next bytes are exactly these."""
        end = time.monotonic() + limit(seconds)
        while len(self.received) - self._checked < len(wanted):
            if not self._read(end):
                break
        got = self.received[self._checked:self._checked + len(wanted)]
        assert got == wanted, f"wanted {wanted!r}, the client sent {got!r}"
        self._checked += len(wanted)

    def expect_silence(self, seconds=0.2):
        """Nothing comes for that long, and the connection stays."""
        end = time.monotonic() + seconds
        while self._read(end):
            pass
        assert self.received[self._checked:] == b""

    def expect_end(self, seconds=5.0):
        """The client closes, having sent nothing more."""
        end = time.monotonic() + limit(seconds)
        while self._read(end, ends=True):
            pass
        assert self.received[self._checked:] == b""

    def shake_hands(self, cid):
        self.send("110: qual a senha")
        self.expect(self.password.encode() + b"\n")
        self.send("120: qual o ID")
        self.expect(cid.encode() + b"\n")
        self.send("140: Connected")

    def keep_alive(self):
        self.send("100: keep alive")
        self.expect(b"100\n")

    def order(self):
        self.send("130: shutdown sys")
        self.expect(b"130\n")

    def refuse(self, line):
        """A last line and the end, as cliserd does it."""
        self.send(line)
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Ends the connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.sock.close()

    def peer_options(self, pid):
        """The client's own end of this connection, to ask for its socket options."""
        import harness
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
                    continue
                sock = harness.copy_descriptor(pid, int(fd))
                if sock.family != socket.AF_UNIX and sock.getsockname() == self.sock.getpeername():
                    return sock
                sock.close()
        raise AssertionError("that process does not have the other end")

    def _read(self, end, ends=False):
        """Takes what comes. Returns False at the deadline, or at the end if the test awaits it."""
        self.sock.settimeout(max(end - time.monotonic(), 0.001))
        try:
            chunk = self.sock.recv(65536)
        except socket.timeout:
            assert not ends, "the client did not close"
            return False
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            assert ends, f"the client closed; it had sent {self.received!r}"
            return False
        self.received += chunk
        return True
