#!/usr/bin/python3
"""
Checks the direction of includes: a layer may include the layers before it and itself, and nothing
else; that each .c includes its own header first; that each header has a guard and compiles alone.
"""

import concurrent.futures
import os
import re
import shlex
import subprocess

import lint

# In this order: a folder of src/ may include the ones before it and itself.
LAYERS = ["proto", "base", "tls", "registry", "store", "session", "net", "admin", "main"]

# What the clients may, beside proto.
CLIENT_USES = ("base", "tls", "client")

# Only these may see libevent: what has sockets, and the one store that speaks to a server itself.
LIBEVENT_ALLOWED = re.compile(r"src/(tls|net|admin|main)/|src/store/store_redis\.[ch]$|client/")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# Whose compiler flags the headers need that include third-party headers.
MODULES = ["libevent_core", "inih", "sqlite3", "libsodium", "jansson", "libsystemd",
           "libmicrohttpd"]


def includes(text):
    """(name, is ours) of each include, in the order of the file."""
    return [(name, quote == '"') for quote, name in INCLUDE.findall(text)]


def resolve(root, path, name):
    """The file of ours that the include means, as a path from the root; None if there is none."""
    for base in (path.parent, root / "include", root / "src", root / "client"):
        if (base / name).is_file():
            return (base / name).resolve().relative_to(root.resolve()).as_posix()
    return None


def layer(path):
    """What a file of ours belongs to: cliser (public), a folder of src/, or client."""
    parts = path.split("/")
    if parts[0] == "include":
        return "cliser"
    return parts[1] if parts[0] == "src" else parts[0]


def may_include(path, target):
    """Why the file may not include the other one; None if it may."""
    mine, other = layer(path), layer(target)
    if target == "src/main/config.h" and mine != "main":
        return "only src/main sees config.h: take a struct of options instead"
    if mine == "cliser" or mine == "proto":
        return None if other == "cliser" else "libcliser uses nothing of ours but cliser/*.h"
    if other == "cliser":
        return None
    if mine == "client":
        return None if other in CLIENT_USES else "client/ uses proto, base and tls only"
    if mine not in LAYERS:
        return f"src/{mine} is no layer; add it to LAYERS where it belongs"
    if other not in LAYERS or LAYERS.index(other) > LAYERS.index(mine):
        return f"{mine} stands before {other} in the order of layers"
    return None


def check_file(root, path, headers):
    name = path.relative_to(root).as_posix()
    found = includes(path.read_text())
    complaints = []

    for include, is_ours in found:
        if not is_ours:
            if include.startswith("event2/") and not LIBEVENT_ALLOWED.match(name):
                complaints.append(f"{name}: <{include}>: libevent belongs to src/net, src/main and "
                                  "client/")
            continue
        target = resolve(root, path, include)
        if target is None:
            complaints.append(f'{name}: "{include}" is no header of ours; others go in <>')
            continue
        why = may_include(name, target)
        if why:
            complaints.append(f'{name}: "{include}": {why}')

    if path.suffix == ".c":
        own = own_header(name, headers)
        first = resolve(root, path, found[0][0]) if found and found[0][1] else None
        if own and first != own:
            complaints.append(f"{name}: must include its own header {own} first")
    return complaints


def own_header(name, headers):
    """The header that belongs to a .c, if it has one."""
    stem = name[:-len(".c")]
    for header in (stem + ".h", "include/cliser/" + stem.split("/")[-1] + ".h"):
        if header in headers and (not header.startswith("include") or layer(name) == "proto"):
            return header
    return None


def check_guards(root, headers):
    complaints = []
    owners = {}
    for name in headers:
        text = re.sub(r"/\*.*?\*/", "", (root / name).read_text(), flags=re.DOTALL)
        guard = re.match(r"\s*#ifndef (\w+)\n#define (\w+)\n.*#endif\s*$", text, re.DOTALL)
        if not guard or guard[1] != guard[2]:
            complaints.append(f"{name}: has no include guard around all of it")
        elif guard[1] in owners:
            complaints.append(f"{name}: its guard {guard[1]} is that of {owners[guard[1]]}")
        else:
            owners[guard[1]] = name
    return complaints


def check_alone(root, headers):
    """Each header twice in an otherwise empty file, as the first thing in it."""
    cc = shlex.split(os.environ.get("CC", "cc"))
    found = subprocess.run(["pkg-config", "--cflags", *MODULES], capture_output=True, text=True)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
             "-fsyntax-only", "-x", "c", *shlex.split(found.stdout)]
    flags += [f"-I{root / folder}" for folder in ("include", "src", "client")]

    def compile_alone(name):
        text = f'#include "{root / name}"\n' * 2
        result = subprocess.run([*cc, *flags, "-"], input=text, capture_output=True, text=True)
        return f"{name}: does not compile alone:\n{result.stderr}" if result.returncode else None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [complaint for complaint in pool.map(compile_alone, headers) if complaint]


def check(root):
    paths = lint.files(root, ["include", "src", "client"], ".c", ".h")
    headers = [path.relative_to(root).as_posix() for path in paths if path.suffix == ".h"]
    complaints = []
    for path in paths:
        complaints += check_file(root, path, headers)
    return complaints + check_guards(root, headers) + check_alone(root, headers)


def header(guard, text=""):
    return f"/* A sample. */\n#ifndef {guard}\n#define {guard}\n{text}\n#endif\n"


SAMPLES = [
    ("a tree in order", {
        "include/cliser/proto.h": header("P"),
        "src/proto/proto.c": '#include "cliser/proto.h"\n#include <string.h>\n',
        "src/base/log.h": header("L"),
        "src/base/log.c": '#include "base/log.h"\n',
        "src/net/conn.h": header("C", '#include "base/log.h"'),
        "src/net/conn.c": '#include "net/conn.h"\n#include "cliser/proto.h"\n'
                          "#include <event2/event.h>\n",
        "src/main/config.h": header("M"),
        "src/main/main.c": '#include "main/config.h"\n#include "net/conn.h"\n',
        "client/link.h": header("K", '#include "cliser/proto.h"'),
        "client/link.c": '#include "link.h"\n#include "base/log.h"\n#include <event2/event.h>\n',
        "client/stress/plan.h": header("S"),
        "client/stress/plan.c": '#include "plan.h"\n#include "link.h"\n',
    }, None),
    ("a lower layer that includes a higher one", {
        "src/net/conn.h": header("C"),
        "src/session/session.c": '#include "net/conn.h"\n',
    }, "session stands before net"),
    ("libcliser that includes base", {
        "src/base/log.h": header("L"),
        "src/proto/proto.c": '#include "base/log.h"\n',
    }, "libcliser uses nothing of ours"),
    ("a public header that includes a private one", {
        "src/base/log.h": header("L"),
        "include/cliser/proto.h": header("P", '#include "base/log.h"'),
    }, "libcliser uses nothing of ours"),
    ("a client that includes a layer of the server", {
        "src/registry/registry.h": header("R"),
        "client/agent.c": '#include "registry/registry.h"\n',
    }, "client/ uses proto, base and tls only"),
    ("a higher layer reached by a relative path", {
        "src/net/conn.h": header("C"),
        "src/base/log.c": '#include "../net/conn.h"\n',
    }, "base stands before net"),
    ("config.h outside main", {
        "src/main/config.h": header("M"),
        "src/net/conn.c": '#include "main/config.h"\n',
    }, "only src/main sees config.h"),
    ("a folder that is no layer", {
        "src/base/log.h": header("L"),
        "src/extra/extra.c": '#include "base/log.h"\n',
    }, "is no layer"),
    ("libevent in session", {
        "src/session/session.c": "#include <event2/event.h>\n",
    }, "libevent belongs to"),
    ("libevent in a store that is not redis", {
        "src/store/store_sqlite.c": "# include <event2/event.h>\n",
    }, "libevent belongs to"),
    ("libevent in the store that is redis", {
        "src/store/store_redis.c": "#include <event2/event.h>\n",
    }, None),
    ("an own header that does not come first", {
        "src/base/log.h": header("L"),
        "src/base/log.c": '#include <stdio.h>\n#include "base/log.h"\n',
    }, "own header src/base/log.h first"),
    ("a public header that does not come first", {
        "include/cliser/proto.h": header("P"),
        "src/proto/proto.c": '#include <stdio.h>\n#include "cliser/proto.h"\n',
    }, "own header include/cliser/proto.h first"),
    ("an include of nothing", {
        "src/base/log.c": '#include "base/nothing.h"\n',
    }, "is no header of ours"),
    ("a header without a guard", {
        "src/base/log.h": "/* A sample. */\nint log_open(void);\n",
    }, "has no include guard"),
    ("a header with half a guard", {
        "src/base/log.h": "#ifndef A\n#define B\n#endif\n",
    }, "has no include guard"),
    ("two headers with one guard", {
        "src/base/log.h": header("L"),
        "src/base/list.h": header("L"),
    }, "its guard L is that of"),
    ("a header that needs another one before it", {
        "src/base/log.h": header("L", "void log_write(uint64_t number);"),
    }, "does not compile alone"),
]

if __name__ == "__main__":
    lint.main("includes", check, SAMPLES)
