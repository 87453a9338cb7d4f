"""
Lets the n-th allocation of a running cliserd fail: the test's side of preload/failing_alloc.c.

  FailingAlloc   the control file of one server: where it is (env), arm, disarm, what happened.

  CLISER_PRELOADS  folder with the preloaded library; default build/release/tests
"""

import ctypes
import mmap
import os
import pathlib
import re
import subprocess

from harness import BIN, sanitized

LIBRARY = (pathlib.Path(os.environ.get("CLISER_PRELOADS", BIN.parent / "tests")) /
           "preload_failing_alloc.so").resolve()

HEAP = 1
MAP = 2
FOREVER = 2**63


class _Control(ctypes.Structure):
    """struct failing_alloc of preload/failing_alloc.h."""
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "ready", "kinds", "first", "spell", "min_size", "calls", "failed", "size", "depth")] + [
            ("frames", ctypes.c_uint64 * 40)]


_READY = 0x636c6973616c6c63


class FailingAlloc:
    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "failing-alloc"
        self.path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with open(self.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(_Control))
        self._control = _Control.from_buffer(self._map)

    @property
    def env(self):
        """The environment of a server that can be made to run out of memory."""
        env = {"CLISER_FAILING_ALLOC": str(self.path), "LD_PRELOAD": str(LIBRARY)}
        if sanitized():
            # Ours goes on to the sanitizer's, and wants to be asked first.
            options = os.environ.get("ASAN_OPTIONS", "")
            env["ASAN_OPTIONS"] = f"{options}:verify_asan_link_order=0".lstrip(":")
        return env

    def is_ready(self):
        return self._control.ready == _READY

    def arm(self, first, spell=1, kinds=HEAP, min_size=0):
        """The first-th call from now on fails, and so do spell - 1 after it."""
        control = self._control
        assert control.kinds == 0, "it is armed already"
        control.calls = control.failed = control.depth = 0
        control.first, control.spell, control.min_size = first, spell, min_size
        control.kinds = kinds

    def disarm(self):
        """Returns whether anything failed."""
        self._control.kinds = 0
        return self._control.failed > 0

    @property
    def calls(self):
        return self._control.calls

    @property
    def failed(self):
        return self._control.failed

    def where(self, pid):
        """Where the first failure was, as text."""
        control = self._control
        if control.failed == 0:
            return "nothing failed"
        maps = []
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                maps.append((begin, end, int(fields[2], 16), fields[5]))
        lines = [f"of {control.size} bytes, {control.failed} failed"]
        for at in control.frames[:control.depth]:
            for begin, end, offset, path in maps:
                if begin <= at < end:
                    lines.append("  " + _symbol(path, at - begin + offset - 1))
        return "\n".join(lines)


def _symbol(path, offset):
    found = subprocess.run(["addr2line", "-Cfe", path, hex(offset)], capture_output=True, text=True)
    text = re.sub(r"\s+", " ", found.stdout).strip()
    return f"{pathlib.Path(path).name}+{offset:#x} {text}"
