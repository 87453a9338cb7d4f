"""Certificates for tests, made by the openssl command: a CA, and what it signs or does not."""

import ssl
import subprocess

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Pair:
    """The files of a certificate and its key."""

    def __init__(self, folder, name):
        self.name = name
        self.cert = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"

    def context(self):
        """What a server shows it with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


def self_signed(folder, name, san="IP:127.0.0.1"):
    pair = Pair(folder, name)
    openssl("req", "-x509", *CURVE, "-keyout", pair.key, "-out", pair.cert, "-days", 9, "-subj",
            f"/CN={name}", "-addext", f"subjectAltName={san}")
    pair.key.chmod(0o600)
    return pair


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.own = self_signed(folder, name)
        self.cert = self.own.cert

    def issue(self, name, san="IP:127.0.0.1", days=9):
        """A certificate that is valid for so many days; -1: it has expired."""
        pair = Pair(self.folder, name)
        request = self.folder / f"{name}.csr"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        openssl("req", *CURVE, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.own.cert, "-CAkey", self.own.key,
                "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", pair.cert)
        pair.key.chmod(0o600)
        return pair
