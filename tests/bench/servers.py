"""The servers that are measured: how each is started with its best fair settings, and spoken to.

None of the peers writes to a disk, logs connections, or limits them below what is asked; each
listens on IPv4 loopback with TCP_NODELAY and a backlog of 4096 where it lets us choose. Redis keeps
its tcp-keepalive, by which it notices peers that have died, as cliserd does.
"""

import dataclasses
import pathlib
import subprocess

PASSWORD = "cliser"
# Longer than any run: nobody is asked while connections are measured.
NEVER_MS = 3_600_000


@dataclasses.dataclass(frozen=True)
class Server:
    """name: in tables; dialect: what bench-load speaks; argv: makes the command of (programs,
    folder, port, interval_ms); version: a command that prints it; note: what a reader must know of
    its settings; package: Debian's, where it is not ours."""

    name: str
    dialect: str
    argv: object
    version: tuple = ()
    note: str = ""
    package: str = ""


def floor(programs, folder, port, interval_ms):
    del folder
    return [str(programs / "bench-floor"), str(port), str(interval_ms)]


def cliserd(store, sync="normal"):
    """cliser.ini as it is shipped, but for the port, the store and the interval."""

    def argv(programs, folder, port, interval_ms):
        config = folder / "cliser.ini"
        config.write_text(
            f"[server]\nlisten = 127.0.0.1:{port}\n"
            f"[auth]\npassword = {PASSWORD}\n"
            f"[keepalive]\ninterval = {interval_ms}ms\n"
            f"[registry]\nstore = {store}\npath = {folder}/cliser.db\nsync = {sync}\n"
        )
        return [str(programs / "cliserd"), str(config)]

    return argv


def redis(programs, folder, port, interval_ms):
    del programs, interval_ms
    config = folder / "redis.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {PASSWORD}\ndir {folder}\n"
        'save ""\nappendonly no\nmaxclients 19900\ntcp-backlog 4096\ntcp-keepalive 300\n'
        "timeout 0\nloglevel warning\n"
    )
    return ["redis-server", str(config)]


def mosquitto(programs, folder, port, interval_ms):
    del programs, interval_ms
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nsocket_domain ipv4\nallow_anonymous true\nuser root\n"
        "persistence false\nlog_type none\nconnection_messages false\nsys_interval 0\n"
        "set_tcp_nodelay true\nmax_connections -1\n"
    )
    return ["mosquitto", "-c", str(config)]


def nats(programs, folder, port, interval_ms):
    del programs, interval_ms
    config = folder / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nauthorization {{ user: bench, password: {PASSWORD} }}\n'
        'max_connections: 19900\nping_interval: "1h"\nlogtime: false\nwrite_deadline: "10s"\n'
    )
    return ["nats-server", "-c", str(config), "-l", "/dev/null"]


FLOOR = Server("floor", "cliser", floor, note="bare epoll; no registry, no password, no deadlines")
MEMORY = Server("cliserd, store memory", "cliser", cliserd("memory"))
SQLITE = Server("cliserd, store sqlite", "cliser", cliserd("sqlite"), note="registered durably")
FULL = Server(
    "cliserd, sync full", "cliser", cliserd("sqlite", "full"), note="an fsync for each commit"
)
REDIS = Server(
    "Redis", "redis", redis, ("redis-server", "--version"),
    "AUTH, CLIENT SETNAME; PING. Keeps nothing", "redis-server",
)
MOSQUITTO = Server(
    "mosquitto", "mqtt", mosquitto, ("mosquitto", "-h"),
    "CONNECT without a password, one round trip; PINGREQ", "mosquitto",
)
NATS = Server(
    "nats-server", "nats", nats, ("nats-server", "--version"),
    "CONNECT with a password; PING", "nats-server",
)

ALL = (FLOOR, MEMORY, SQLITE, FULL, REDIS, MOSQUITTO, NATS)
PEERS = (REDIS, MOSQUITTO, NATS)


def version_of(server):
    """The first line with a number in it that the server's own version command prints."""
    if not server.version:
        return ""
    done = subprocess.run(server.version, capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        if any(letter.isdigit() for letter in line):
            return line.strip()
    return "unknown"


def is_installed(server):
    return not server.package or any(
        pathlib.Path(folder, server.version[0]).exists()
        for folder in ("/usr/bin", "/usr/sbin", "/usr/local/bin")
    )
