"""
Certificates for the tests of TLS, made with openssl(1), and clients that speak TLS.

  Authority   a CA of the test's own: authority.issue("server", san="DNS:localhost") writes
              server.crt and server.key beside its own ca.crt, and returns them as a Pair.
  self_signed a Pair that no CA vouches for.
  pair, place, TLS_KEYS
              the two files of a certificate; those as cert.pem and key.pem in a server's folder;
              and the keys of [server] that take them from there.
  TlsClient   harness.Client over TLS. The end of its stream has to be told (close_notify), or a
              test says that it may be cut.
  MemoryTls   the same without a socket in it: a test decides which bytes go out, and how.
  LibsslTls   OpenSSL by its own functions, for what Python's ssl does not offer.
"""

import contextlib
import ctypes
import ctypes.util
import pathlib
import select
import socket
import ssl
import subprocess
import time
import typing

from harness import Client, limit

CA_CONFIG = """
[ca]
default_ca = this
[this]
database = {folder}/index.txt
rand_serial = yes
new_certs_dir = {folder}
certificate = {folder}/{name}.crt
private_key = {folder}/{name}.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = optional
organizationName = optional
"""

DAY = 86400


def openssl(*args, **options):
    """Runs openssl(1) and returns what it printed."""
    result = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True,
                            timeout=limit(30), **options)
    assert result.returncode == 0, f"openssl {args[0]}: {result.stderr}"
    return result.stdout


def new_key(kind):
    curve = "P-256" if kind == "ec" else kind
    return ["rsa:2048"] if kind == "rsa" else ["ec", "-pkeyopt", f"ec_paramgen_curve:{curve}"]


class Pair(typing.NamedTuple):
    """The files of a certificate and its key."""
    cert: pathlib.Path
    key: pathlib.Path

    def context(self):
        """What a server shows it with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self)
        return context


def self_signed(folder, name, san="IP:127.0.0.1"):
    made = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    openssl("req", "-x509", "-newkey", *new_key("ec"), "-nodes", "-days", 30, "-subj",
            f"/CN={name}", "-addext", f"subjectAltName={san}", "-keyout", made.key, "-out",
            made.cert)
    made.key.chmod(0o600)
    return made


def stamp(days):
    """So many days from now, as openssl takes it."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * DAY))


class Authority:
    """Signs whatever it is given."""

    def __init__(self, folder, name="ca"):
        self.folder = pathlib.Path(folder)
        self.name = name
        self.cert, self.key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        (self.folder / "index.txt").touch()
        (self.folder / f"{name}.cnf").write_text(CA_CONFIG.format(folder=self.folder, name=name))
        openssl("req", "-x509", "-newkey", *new_key("ec"), "-nodes", "-days", 30, "-subj",
                f"/CN=Test {name}", "-keyout", self.key, "-out", self.cert)

    def issue(self, name, subject="/CN=localhost", san="DNS:localhost,IP:127.0.0.1", key="ec",
              days=365, dates=None):
        """
        Writes NAME.crt and NAME.key and returns their paths. dates is (start, end) as openssl takes
        them; without, the certificate is good for so many days, or was until so many days ago.
        """
        cert, key_file = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        extension = ["-addext", f"subjectAltName={san}"] if san else []
        openssl("req", "-new", "-newkey", *new_key(key), "-nodes", "-subj", subject, *extension,
                "-keyout", key_file, "-out", request)
        if not dates and days < 0:
            dates = (stamp(days - 1), stamp(days))
        when = ["-startdate", dates[0], "-enddate", dates[1]] if dates else ["-days", days]
        openssl("ca", "-batch", "-notext", "-config", self.folder / f"{self.name}.cnf", "-in",
                request, "-out", cert, *when)
        key_file.chmod(0o600)
        return Pair(cert, key_file)

    def context(self, cert=None, version=None):
        """For clients that trust this CA; cert is a (certificate, key) of the client's own."""
        context = ssl.create_default_context(cafile=self.cert)
        if cert:
            context.load_cert_chain(*cert)
        if version:
            context.minimum_version = context.maximum_version = version
        return context


def pair(authority, name="server"):
    """What issue() has returned for that name."""
    return Pair(authority.folder / f"{name}.crt", authority.folder / f"{name}.key")


TLS_KEYS = {"tls_listen": "127.0.0.1:0", "tls_cert": "cert.pem", "tls_key": "key.pem"}


def place(folder, cert, key):
    """A certificate and its key, as an operator would put them there."""
    for source, name, mode in ((cert, "cert.pem", 0o644), (key, "key.pem", 0o600)):
        path = folder / name
        path.unlink(missing_ok=True)
        path.touch(mode)
        path.write_bytes(source.read_bytes())


class TlsClient(Client):
    """One connection over TLS, whose handshake is done when this returns."""

    def __init__(self, server, context, session=None, may_be_cut=False, **options):
        super().__init__(server.tls_address, **options)
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost",
                                            suppress_ragged_eofs=may_be_cut, session=session)
        except BaseException:
            self.sock.close()
            raise

    def leave(self):
        """Ends in order: close_notify, that of the server, and the close."""
        raw = self.sock.unwrap()
        raw.close()

    def send_raw(self, data):
        """Bytes that are not TLS."""
        with socket.socket(fileno=socket.dup(self.sock.fileno())) as raw:
            raw.sendall(data)


class MemoryTls:
    """The client's half of TLS in memory, and a plain socket for a test to send its bytes on."""

    def __init__(self, server, context, timeout=5.0):
        self.sock = socket.create_connection(server.tls_address, limit(timeout))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def out(self):
        """What is to be sent."""
        return self.outgoing.read()

    def first_flight(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.out()

    def read_more(self):
        """Takes what comes; returns whether something did."""
        data = self.sock.recv(65536)
        if data:
            self.incoming.write(data)
        return bool(data)

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.out())
                assert self.read_more(), "the server closed within the handshake"
        self.sock.sendall(self.out())

    def record(self, data):
        """The data as a record that is still to be sent."""
        self.tls.write(data)
        return self.out()

    def close_notify(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.out()

    def read_line(self):
        line = b""
        while not line.endswith(b"\n"):
            try:
                line += self.tls.read(1)
            except ssl.SSLWantReadError:
                assert self.read_more(), f"the stream ended after {line!r}"
        return line


class LibsslTls:
    """
    A client of TLS 1.3 that can have the server change its keys. It checks no certificate. What it
    says is put by in memory, so that it can go on reading, or not, whatever the socket takes.
    """

    REQUESTED = 1

    def __init__(self, server, rcvbuf=None, mss=None):
        self.ssl_lib = ctypes.CDLL(ctypes.util.find_library("ssl") or "libssl.so.3")
        self.lib = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
        for lib, name in ((self.ssl_lib, "TLS_client_method"), (self.ssl_lib, "SSL_CTX_new"),
                          (self.ssl_lib, "SSL_new"), (self.lib, "BIO_s_mem"),
                          (self.lib, "BIO_new")):
            getattr(lib, name).restype = ctypes.c_void_p
        self.context = self._new("SSL_CTX_new", self._new("TLS_client_method"))
        self.ssl = self._new("SSL_new", self.context)
        self.incoming, self.outgoing = [
            ctypes.c_void_p(self.lib.BIO_new(ctypes.c_void_p(self.lib.BIO_s_mem())))
            for _ in range(2)]
        self.ssl_lib.SSL_set_bio(self.ssl, self.incoming, self.outgoing)  # owns both
        self.waiting = b""  # for the socket to take it
        self.client = Client(server.tls_address, rcvbuf=rcvbuf, mss=mss)
        self.client.sock.setblocking(False)
        self._finish(lambda: self.ssl_lib.SSL_connect(self.ssl))

    def _new(self, name, *args):
        return ctypes.c_void_p(getattr(self.ssl_lib, name)(*args))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ssl_lib.SSL_free(self.ssl)
        self.ssl_lib.SSL_CTX_free(self.context)
        self.client.close()

    def _send_waiting(self):
        """Sends what the socket takes."""
        buf = ctypes.create_string_buffer(65536)
        while (count := self.lib.BIO_read(self.outgoing, buf, len(buf))) > 0:
            self.waiting += buf.raw[:count]
        with contextlib.suppress(BlockingIOError):
            while self.waiting:
                self.waiting = self.waiting[self.client.sock.send(self.waiting):]

    def _finish(self, call):
        """Calls until it is done, and reads and sends meanwhile."""
        while (result := call()) <= 0:
            self._send_waiting()
            sock = self.client.sock
            readable, _, _ = select.select([sock], [sock] if self.waiting else [], [], limit(5))
            if readable:
                data = sock.recv(65536)
                assert data, "the server has ended the stream"
                self.lib.BIO_write(self.incoming, data, len(data))
        self._send_waiting()
        return result

    def send(self, data):
        self._finish(lambda: self.ssl_lib.SSL_write(self.ssl, data, len(data)))

    def read_line(self):
        buf = ctypes.create_string_buffer(1)
        line = b""
        while not line.endswith(b"\n"):
            self._finish(lambda: self.ssl_lib.SSL_read(self.ssl, buf, 1))
            line += buf.raw
        return line

    def ask_for_new_keys(self):
        """Has the server answer with new keys of its own, until it takes no more questions, since
        nobody reads the answers. Returns how often."""
        count = 0
        while not self.waiting or select.select([], [self.client.sock], [], 0.5)[1]:
            assert self.ssl_lib.SSL_key_update(self.ssl, self.REQUESTED) == 1
            assert self.ssl_lib.SSL_do_handshake(self.ssl) == 1
            self._send_waiting()
            count += 1
        return count
