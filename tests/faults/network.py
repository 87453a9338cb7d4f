"""
Two machines and a cable between them: network namespaces of our own. The server is started in the
first (IN_NETWORK goes before it), the far clients live in the second, and the cable may be cut.
"""

import subprocess

import pytest

from harness import can_unshare, in_namespace_of, needs_root

IN_NETWORK = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
LISTEN = "127.0.0.1:1111, 0.0.0.0:1112"  # the witnesses come by the first, the far by the second
SERVER = ("10.9.0.1", 1112)
FAR = "10.9.0.2"

needs_cable = [needs_root, pytest.mark.skipif(not can_unshare("-n"),
                                              reason="may not make a network namespace")]


class FarMachine:
    """The second machine, with its cable to the server's namespace."""

    def __init__(self, server):
        self.server = server
        self.process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready && exec cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self._in(server.pid, f"ip link add near type veth peer name far netns {self.pid}",
                 f"ip address add {SERVER[0]}/24 dev near", "ip link set near up")
        self._in(self.pid, f"ip address add {FAR}/24 dev far", "ip link set far up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()

    @property
    def pid(self):
        return self.process.pid

    def do(self, work):
        """Does it there; a socket made there stays there."""
        return in_namespace_of(self.pid, "net", work)

    def cut(self):
        """Nothing gets through any more, and nobody is told."""
        self._in(self.pid, "ip link set far down")

    def destroy(self):
        """The machine is no more, nor is the cable, once its sockets are closed as well."""
        if self.process.poll() is None:
            self._in(self.server.pid, "ip link delete near")
            self.process.kill()
            self.process.communicate()

    @staticmethod
    def _in(pid, *commands):
        subprocess.run(["nsenter", "-t", str(pid), "-n", "sh", "-ec", "\n".join(commands)],
                       check=True)
