"""A crowd of real clients in a process of its own: cliser-stress, to be stopped or killed."""

import json
import pathlib
import resource
import signal
import subprocess
import tempfile

from harness import BIN, PASSWORD


class Crowd:
    """
    So many clients that connect as fast as they may and stay, until the crowd is left. More options
    of cliser-stress may follow. wrap is a command that ends up running it.
    """

    def __init__(self, server, count, *options, prefix="crowd-", wrap=()):
        host, port = server.address
        self.report_file = tempfile.NamedTemporaryFile(prefix="crowd-", suffix=".json")
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*wrap, str(BIN / "cliser-stress"), "--server", f"{host}:{port}",
             "--clients", str(count), "--password", PASSWORD, "--id-prefix", prefix,
             "--hold", "1d", "--json", self.report_file.name, *map(str, options)],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2))
        self.count = count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9: all are gone at once, without a word."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def said(self):
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")[-2000:]

    def check_nobody_lost(self):
        """Ends the crowd and asks it whether all came in, and stayed until then."""
        self.signal(signal.SIGINT)
        self.process.wait()
        text = pathlib.Path(self.report_file.name).read_text(encoding="utf-8")
        assert text, f"no report of the crowd: {self.said()}"
        clients = json.loads(text)["clients"]
        assert self.process.returncode == 0 and clients["up"] == self.count, clients
