#!/usr/bin/python3
"""
Writes the seeds of the corpora: inputs that people thought of, from the protocol's transcripts and
the garbage of the black-box tests. What fuzzing found stands beside them under names that are
hashes. Run it after a change of it; it removes nothing.
"""

import pathlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(target, seeds):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in seeds.items():
        (folder / name).write_bytes(content)


# ---- what one peer sends, as it goes over the wire ----

# The rows of FAULTS section 3 that are about bytes, in the order of their numbers.
FROM_CLIENT = {
    "session": b"secret\nweb-1\n100\n100\n130\n",
    "session-crlf": b"secret\r\nweb-1\r\n100\r\n130\r\n",
    "no-line-end": b"x" * 1000,
    "line-255-lf": b"x" * 254 + b"\n" + b"y\n",
    "line-256-lf": b"x" * 255 + b"\n" + b"y\n",
    "line-257-lf": b"x" * 256 + b"\n" + b"y\n",
    "line-256-crlf": b"x" * 254 + b"\r\n" + b"y\n",
    "line-257-crlf": b"x" * 255 + b"\r\n" + b"y\n",
    "nul": b"sec\0ret\nweb-1\n",
    "nul-in-second-line": b"secret\nweb\0-1\n",
    "bare-cr": b"sec\rret\nweb-1\r\r\n",
    "high-bytes": bytes(range(128, 256)) + b"\n" + b"\xc0\x80\xf8\x88\x80\x80\x80\n",
    "escapes-in-id": b"secret\n\x1b[2J\n",
    "markup-in-id": b"secret\n\"><script>alert(1)</script>\n",
    "id-64": b"secret\n" + b"A" * 64 + b"\n",
    "id-65": b"secret\n" + b"A" * 65 + b"\n",
    "id-all": b"secret\nAZaz09._:@-\n",
    "pipelined": b"secret\nweb-1\n100\n",
    "answer-first": b"100\nsecret\nweb-1\n",
    "every-code": b"secret\nweb-1\n" + b"".join(
        b"%d: text\n" % code for code in (100, 110, 120, 130, 140, 400, 408, 410, 460, 499, 999)),
    "unasked-8": b"secret\nweb-1\n" + b"hello\n" * 8,
    "unasked-9": b"secret\nweb-1\n" + b"hello\n" * 9,
    "empty-password": b"\nweb-1\n",
    "empty-id": b"secret\n\r\n",
    "blanks": b" \n \n",
    "password-128": b"p" * 128 + b"\nweb-1\n",
    "password-129": b"p" * 129 + b"\nweb-1\n",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls-hello": bytes.fromhex("16030100c4010000c00303") + bytes(range(32)) + b"\x20",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
}

FROM_SERVER = {
    "session": b"110: qual a senha\r\n120: qual o ID\r\n140: Connected\r\n100: keep alive\r\n"
               b"130: shutdown sys\r\n100: keep alive\r\n",
    "digits-only": b"110\n120\n140\n100\n130\n",
    "refused-at-once": b"450: server full\r\n",
    "wrong-password": b"110: qual a senha\r\n410: wrong password\r\n",
    "refused-id": b"110\r\n120\r\n421: ID already connected\r\n",
    "unknown-refusal": b"110\r\n120\r\n499: later perhaps\r\n",
    "unknown-code": b"110\r\n120\r\n777: something new\r\n140\r\n200 fine\r\n",
    "order-too-early": b"130: shutdown sys\r\n",
    "order-before-140": b"110\r\n120\r\n130: shutdown sys\r\n",
    "order-twice": b"110\r\n120\r\n140\r\n130\r\n130\r\n",
    "other-server": b"220 mail.example.org ESMTP\r\n",
    "garbage": b"hello\r\n",
    "wrong-order": b"120\r\n110\r\n140\r\n",
    "nul": b"110\0\r\n",
    "long": b"110: " + b"x" * 300 + b"\r\n",
}


# ---- scripts for sessions, as fuzz_server_fsm.c reads them ----

STEPS = ["connect", "send", "line", "wait", "queue", "order", "cancel", "disconnect", "forget",
         "ping", "reload", "leave", "fail", "store", "jump", "look"]
LINES = ["secret", "other", "a", "b1", "b2", "c", "100", "130", "hello"]
WAITS_MS = [0, 1, 10, 99, 500, 1000, 1999, 2000, 5000, 10000, 20000, 60001]
OPTIONS = bytes([0, 0x79, 15])  # probe, auto; 10 s, 4 misses; 16 clients, "secret"


def step(name, slot=0, *arguments):
    return bytes([STEPS.index(name) | slot << 4, *arguments])


def line(slot, text):
    return step("line", slot, LINES.index(text))


def send(slot, text, how="send"):
    return step(how, slot, len(text)) + text


def wait(ms):
    return step("wait", 0, WAITS_MS.index(ms))


def join(slot, cid):
    return step("connect", slot) + line(slot, "secret") + line(slot, cid) + wait(0)


CONN_STEPS = ["connect", "send", "line", "wait", "half-close", "close", "order", "cancel",
              "disconnect", "reload", "end", "deaf", "bulk"]


def conn_scripts():
    """As fuzz_conn.c reads them: most steps are those of sessions under other numbers."""
    seeds = {}

    def do(name, slot=0, *arguments):
        return bytes([CONN_STEPS.index(name) | slot << 4, *arguments])

    def enter(slot, cid):
        return do("connect", slot) + do("send", slot, 8 + len(cid)) + b"secret\n" + cid + b"\n"

    def pause(ms):
        return do("wait", 0, WAITS_MS.index(ms))

    for name, content in FROM_CLIENT.items():
        parts = [content[i:i + 255] for i in range(0, len(content), 255)]
        seeds[f"bytes-{name}"] = b"\0" + do("connect") + b"".join(
            do("send", 0, len(part)) + part for part in parts) + pause(10000)
    two = enter(0, b"a") + enter(1, b"b1")
    again = enter(0, b"a") + enter(1, b"a")
    answer = do("line", 0, 6) + do("line", 1, 6)
    seeds |= {
        "kept-alive": b"\0" + two + (pause(10000) + answer) * 4,
        "silent": b"\0" + do("connect") + pause(10000) + pause(2000),
        "goes-silent": b"\0" + two + pause(10000) + answer + pause(10000) * 6,
        "probe": b"\0" + again + pause(2000) + pause(2000),
        "takeover": b"\1" + again + pause(2000),
        "reject": b"\2" + again + pause(2000),
        "no-reason": b"\x12" + again + pause(2000),
        "half-close": b"\0" + two + do("half-close", 0) + pause(10),
        "half-close-early": b"\0" + do("connect") + do("line", 0, 0) + do("half-close", 0),
        "close": b"\0" + two + do("close", 0) + enter(0, b"a"),
        "order": b"\0" + two + do("order", 0, 0, 14) + do("line", 0, 7) + do("close", 0)
        + pause(60001) + enter(2, b"c"),
        "cancel": b"\0" + two + do("order", 0, 1, 14) + do("cancel") + enter(2, b"a"),
        "disconnect": b"\0" + two + do("disconnect", 0, 0) + do("line", 0, 6) + pause(2000),
        "reload": b"\0" + two + do("reload", 0, 0x1d) + pause(5000) + answer,
        "drain": b"\0" + two + do("end", 0, 1) + pause(500) + pause(1000),
        "stop": b"\0" + two + do("end", 0, 0),
        "deaf": b"\0" + two + do("deaf", 0) + pause(10000) * 3 + do("deaf", 0),
        "bulk": b"\0" + two + do("bulk", 0, 254) + do("bulk", 1, 255),
        "bulk-early": b"\0" + do("connect") + do("bulk", 0, 4) + pause(2000),
        "much-ahead": b"\0" + do("connect") + do("send", 0, 250) + b"secret\na\n" + b"100\n" * 60
        + b"1" + do("send", 0, 3) + b"00\n",
    }
    return seeds


def session_scripts():
    seeds = {}
    for name, content in FROM_CLIENT.items():
        parts = [content[i:i + 255] for i in range(0, len(content), 255)]
        seeds[f"bytes-{name}"] = (OPTIONS + step("connect") + b"".join(
            send(0, part) for part in parts) + wait(0) + wait(10000))
    two = join(0, "a") + join(1, "b1")
    twice = join(0, "a") + step("connect", 1) + line(1, "secret") + line(1, "a")
    seeds |= {
        "silent": OPTIONS + step("connect") + wait(10000) + wait(10000),
        "kept-alive": OPTIONS + two + (wait(5000) + line(0, "100") + line(1, "100")) * 8,
        "never-answers": OPTIONS + two + wait(10000) * 8,
        "stops-answering": OPTIONS + two + wait(10000) + line(0, "100") + wait(10000) * 8,
        "must-answer": b"\x01" + OPTIONS[1:] + two + wait(10000) * 8,
        "probe-answered": OPTIONS + twice + line(0, "100") + wait(0),
        "probe-unanswered": OPTIONS + twice + wait(1999) + wait(2000) + wait(0),
        "probe-answer-in-kernel": OPTIONS + twice + send(0, b"100\n", "queue") + wait(5000),
        "probe-newcomer-leaves": OPTIONS + twice + step("leave", 1, 0) + wait(2000),
        "probe-holder-gone": OPTIONS + join(0, "a") + step("fail", 0) + twice[11:] + wait(2000),
        "takeover": b"\x04" + OPTIONS[1:] + twice + wait(0),
        "reject": b"\x08" + OPTIONS[1:] + twice + wait(0),
        "silent-refusal": b"\x10" + OPTIONS[1:] + twice + line(0, "100") + wait(0),
        "order-all": OPTIONS + two + step("order", 0, 0, 2) + wait(0) + line(0, "130")
        + line(1, "130") + step("leave", 0, 0) + step("leave", 1, 1) + wait(1000),
        "order-waves": OPTIONS + two + step("order", 0, 9, 0x26) + wait(0) + wait(1000)
        + line(0, "130") + wait(1000) + wait(2000),
        "order-hold": OPTIONS + two + step("order", 0, 0, 8) + wait(500) + join(2, "c")
        + wait(20000),
        "order-cancel": OPTIONS + two + step("order", 0, 1, 0x22) + wait(0) + step("cancel")
        + join(2, "b2") + wait(2000),
        "order-twice": OPTIONS + two + step("order", 0, 2, 2) + step("order", 0, 0, 2) + wait(0),
        "order-unsaved": OPTIONS + two + step("store", 0, 1) + step("order", 0, 0, 2) + wait(0),
        "order-130-unasked": OPTIONS + two + line(0, "130") * 9 + wait(0),
        "ping": OPTIONS + two + step("ping", 0, 0) + wait(10) + line(0, "100") + wait(0),
        "ping-timeout": OPTIONS + two + step("ping", 0, 0) + wait(5000) + wait(1),
        "ping-left": OPTIONS + two + step("ping", 0, 0) + step("leave", 0, 0),
        "disconnect-forget": OPTIONS + two + step("disconnect", 0, 0) + wait(0)
        + step("forget", 0, 0),
        "forget-after": b"\x40" + OPTIONS[1:] + two + step("leave", 0, 0) + wait(2000) * 3,
        "clock-jumps": b"\x40" + OPTIONS[1:] + two + step("leave", 0, 0) + step("jump", 0, 100)
        + wait(2000) + step("jump", 0, 200) + wait(2000),
        "store-unavailable": OPTIONS + step("store", 0, 1) + join(0, "a") + wait(0),
        "store-taken": OPTIONS + step("store", 0, 2) + join(0, "a") + wait(0),
        "store-stuck": OPTIONS + step("store", 0, 4) + join(0, "a") + line(0, "100")
        + wait(10000) + step("store", 0, 0) + wait(0),
        "granted-too-late": OPTIONS + step("store", 0, 4) + join(0, "a") + step("leave", 0, 0)
        + step("store", 0, 0) + wait(0) + join(1, "a"),
        "full": OPTIONS[:2] + b"\x00" + two + join(2, "c"),
        "reload": OPTIONS + two + step("reload") + b"\x15\x20\x1f" + join(2, "c") + wait(10000),
        "frozen": OPTIONS + two + step("order", 0, 0, 2) + step("look", 0, 255) + wait(1000),
        "look": OPTIONS + step("connect") + send(0, b"secret\na\n", "queue")
        + step("look", 0, 0) + wait(0),
    }
    return seeds


# ---- ini files ----

PASSWORD = b"[auth]\npassword = secret\n"
CONFIGS = {
    "shipped": (CORPUS.parents[2] / "cliser.ini").read_bytes(),
    "least": PASSWORD,
    "empty": b"",
    "crlf": b"[auth]\r\npassword = secret\r\n",
    "bom": b"\xef\xbb\xbf" + PASSWORD,
    "no-newline": PASSWORD[:-1],
    "lists": PASSWORD + b"[server]\nlisten = 127.0.0.1:1, [::1]:2,\n  unix:/tmp/x\n"
             b"listen = 127.0.0.2:3\n",
    "rotation": b"[auth]\npassword = one\npassword = two\npassword_file = password\n",
    "password-file": b"[auth]\npassword_file = password\n",
    "password-file-empty": b"[auth]\npassword_file = empty\n",
    "password-file-missing": b"[auth]\npassword_file = nowhere\n",
    "password-cut": b"[auth]\npassword = se ;cret\n",
    "password-long": b"[auth]\npassword = " + b"p" * 129 + b"\n",
    "password-empty": b"[auth]\npassword =\n",
    "shipped-and-reachable": b"[server]\nlisten = 0.0.0.0:1111\n[auth]\npassword = cliser\n",
    "control": PASSWORD + b"[control]\nsocket = c.sock\nhttp = 127.0.0.1:3333\n"
               b"token_file = token\n",
    "control-no-token": PASSWORD + b"[control]\nhttp = 127.0.0.1:3333\n",
    "line-199": PASSWORD + b"[registry]\npath = " + b"x" * 192 + b"\n",
    "line-200": PASSWORD + b"[registry]\npath = " + b"x" * 193 + b"\n",
    "line-201": PASSWORD + b"[registry]\npath = " + b"x" * 194 + b"\n",
    "nul": PASSWORD + b"[log]\nlevel = in\0fo\n",
    "twice": PASSWORD + b"[log]\nlevel = info\nlevel = warn\n",
    "unknown-key": PASSWORD + b"[log]\nlevle = info\n",
    "unknown-section": PASSWORD + b"[lgo]\nlevel = info\n",
    "no-section": b"password = secret\n",
    "broken-section": b"[auth\npassword = secret\n",
    "no-equals": PASSWORD + b"[log]\nlevel\n",
    "colon": PASSWORD + b"[log]\nlevel: debug\n",
    "comments": b"; one\n# two\n" + PASSWORD + b"[log]\nlevel = info ; three\n",
    "numbers": PASSWORD + b"[server]\nmax_clients = 0\nbacklog = 65536\n[keepalive]\nmisses = 256\n"
               b"interval = 1d\n[limits]\nmax_pending = 18446744073709551616\n",
    "never": PASSWORD + b"[registry]\nforget_after = never\n",
    "credentials": b"[credential web]\npassword = one\npassword = two\nids = web-*, www\n"
                   b"[credential db]\npassword_file = password\nids = db-[0-9]\n ids = nas\n",
    "credential-and-auth": PASSWORD + b"[credential web]\npassword = other\nids = *\n",
    "credential-twice": b"[credential a]\npassword = p\nids = *\n[credential a]\n"
                        b"password = q\nids = *\n",
    "credential-wrong": b"[credential auth]\npassword = p\n[credential]\nids = [a\n"
                        b"[credential two words]\nids = x\npassword = p\n",
    "tls": PASSWORD + b"[server]\ntls_listen = 127.0.0.1:1112, [::1]:1112\ntls_cert = password\n"
           b"tls_key = token\ntls_client_ca = empty\n",
    "tls-without-files": PASSWORD + b"[server]\ntls_listen = 127.0.0.1:1112\n",
    "tls-without-listen": PASSWORD + b"[server]\ntls_cert = password\ntls_client_ca = x\n",
    "every-error": b"[server]\nlisten = nowhere\nreuse_port = maybe\n[registry]\nstore = redis\n"
                   b"[keepalive]\ninterval = 5 parsecs\n",
}
AGENT_CONFIGS = {
    "all": b"[agent]\nserver = 127.0.0.1:1111\nid = web-1\npassword_file = password\n"
           b"on_shutdown = poweroff\nshutdown_delay = 5s\nonce = yes\n",
    "least": b"[agent]\nserver = [::1]:1111\npassword_file = password\n",
    "empty": b"",
    "unix": b"[agent]\nserver = unix:/tmp/x\npassword_file = password\n",
    "cut": b"[agent]\nserver = h:1\npassword_file = password\non_shutdown = sync ; poweroff\n",
    "id-bad": b"[agent]\nserver = h:1\npassword_file = password\nid = a b\n",
    "options": b"--server\nlocalhost:1\n--password-file\npassword\n--id\na\n--once",
    "options-short": b"-s\nlocalhost:1\n-p\npassword\n-i\na\n-1\n-d\n1m\n-x\ntrue",
    "options-equals": b"--server=localhost:1\n--password-file=password\n--shutdown-delay=2d",
    "help": b"--help",
    "version": b"-V",
    "options-wrong": b"--serve\nx\n--nothing\n-z\n--once=yes\n--id",
    "too-many": b"--\na\nb",
}


# ---- requests of operators ----

ORDER = b'{"waves": [["web-*"], ["db-*", "nas"]], "grace": "60s", "hold": "15m"}'
REQUESTS = {
    "page": b"GET /",
    "page-script": b"GET /dashboard.js",
    "page-head": b"HEAD /",
    "page-post": b"POST /",
    "health": b"GET /healthz",
    "ready": b"GET /readyz",
    "metrics": b"GET /metrics",
    "status": b"GET /v1/status",
    "clients": b"GET /v1/clients",
    "clients-some": b"GET /v1/clients?status=connected&match=%2A&limit=1&after=db-1",
    "clients-sorted": b"GET /v1/clients?sort=-since&limit=2",
    "clients-sorted-on": b"GET /v1/clients?sort=rtt_ms&after=rtt_ms~18446744073709551615~db-1",
    "clients-sorted-wrong": b"GET /v1/clients?sort=sid&after=-sid~1~db-1",
    "clients-wrong": b"GET /v1/clients?status=maybe",
    "clients-twice": b"GET /v1/clients?limit=1&limit=2",
    "client": b"GET /v1/clients/web-1",
    "client-unknown": b"GET /v1/clients/nobody",
    "client-head": b"HEAD /v1/clients/web-1",
    "forget": b"DELETE /v1/clients/nas",
    "ping": b"POST /v1/clients/web-1/ping",
    "disconnect": b"POST /v1/clients/db-1/disconnect",
    "order-state": b"GET /v1/shutdown",
    "targets": b"GET /v1/shutdown/targets?state=told&wave=1",
    "cancel": b"DELETE /v1/shutdown",
    "events": b"GET /v1/events",
    "reload": b"POST /v1/reload",
    "no-path": b"GET /v2",
    "no-method": b"PUT /v1/shutdown",
}
BODIES = {
    "order": ORDER,
    "order-dry": ORDER[:-1] + b', "dry_run": true}',
    "order-all": b'{"waves": [["*"]]}',
    "order-empty": b"",
    "order-not-json": b"{",
    "order-wrong": b'{"waves": [[]], "grace": 60, "hold": "forever", "more": 1}',
}


def requests():
    port = (b"Host: 127.0.0.1:3333\nAuthorization: Bearer token-of-20-characters\n"
            b"Content-Type: application/json\n")
    seeds = {}
    all_requests = {name: (line, b"") for name, line in REQUESTS.items()}
    all_requests |= {name: (b"POST /v1/shutdown", body) for name, body in BODIES.items()}
    for name, (line, body) in all_requests.items():
        seeds[f"socket-{name}"] = bytes([0]) + line + b"\n\n" + body
        seeds[f"busy-{name}"] = bytes([2 + 4 + 16]) + line + b"\n\n" + body
        seeds[f"port-{name}"] = bytes([1]) + line + b"\n" + port + b"\n" + body
    order = b"POST /v1/shutdown\n"
    seeds |= {
        "no-token": b"\1" + order + b"Host: 127.0.0.1:3333\n\n" + ORDER,
        "wrong-token": b"\1" + order + port.replace(b"token-of", b"tokem-of") + b"\n" + ORDER,
        "basic": b"\1" + order + port.replace(b"Bearer", b"Basic") + b"\n" + ORDER,
        "token-twice": b"\1" + order + port * 2 + b"\n" + ORDER,
        "other-host": b"\1" + order + port.replace(b"127.0.0.1", b"evil.example") + b"\n" + ORDER,
        "other-page": b"\1" + order + port + b"Origin: http://evil.example\n\n" + ORDER,
        "own-page": b"\1" + order + port + b"Origin: http://localhost:3333\n\n" + ORDER,
        "form": b"\1" + order + port.replace(b"application/json", b"text/plain") + b"\n" + ORDER,
        "cancel-form": b"\3DELETE /v1/shutdown\n" + port.replace(b"application/json", b"text/x")
        + b"\n",
        "forget-form": b"\5DELETE /v1/clients/nas\n" + port.replace(b"Content-Type", b"X") + b"\n",
        "page-known": b"\0GET /\nIf-None-Match: *\n\n",
        "page-no-token": b"\1GET /\nHost: 127.0.0.1:3333\n\n",
        "page-other-host": b"\1GET /\nHost: evil.example\n\n",
        "events-full": b"\x08GET /v1/events\n\n",
        "events-since": b"\0GET /v1/events\nLast-Event-ID: 12\n\n",
        "body-unwanted": b"\0POST /v1/reload\n\n[1]",
    }
    return seeds


CONTROL_STEPS = ["open-socket", "open-port", "send", "piece", "wait", "half-close", "close",
                 "answer", "leave", "deaf"]
CONTROL_WAITS_MS = [0, 20, 100, 999, 1000, 5000, 10000, 15000, 31000]


def control_scripts():
    """As fuzz_control.c reads them."""
    def do(name, slot=0, *arguments):
        return bytes([CONTROL_STEPS.index(name) | slot << 4, *arguments])

    def send(slot, content):
        return b"".join(do("send", slot, len(content[i:i + 255])) + content[i:i + 255]
                        for i in range(0, len(content), 255))

    def pause(ms):
        return do("wait", 0, CONTROL_WAITS_MS.index(ms))

    seeds = {}
    rights = do("piece", 0, 20)  # host, token, JSON
    for i in range(10):
        line = do("piece", 0, i)
        seeds[f"socket-{i}"] = do("open-socket") + line + do("piece", 0, 10) + do("piece", 0, 22)
        seeds[f"port-{i}"] = do("open-port") + line + rights + do("piece", 0, 22) + pause(1000)
        seeds[f"port-no-token-{i}"] = (do("open-port") + line + do("piece", 0, 10)
                                     + do("piece", 0, 22))
    order = do("piece", 0, 2) + rights
    seeds |= {
        "order": do("open-port") + order + do("piece", 0, 13) + do("piece", 0, 17)
        + do("piece", 0, 18) + do("answer", 0) + do("answer", 1) + do("leave", 0) + pause(1000),
        "order-chunked": do("open-port") + order + do("piece", 0, 14) + do("piece", 0, 17)
        + do("piece", 0, 19) + pause(1000),
        "order-expect": do("open-port") + order + do("piece", 0, 13) + do("piece", 0, 16)
        + do("piece", 0, 17) + do("piece", 0, 18),
        "order-no-token": do("open-port") + do("piece", 0, 2) + do("piece", 0, 10)
        + do("piece", 0, 12) + do("piece", 0, 13) + do("piece", 0, 17) + do("piece", 0, 18),
        "ping-answered": do("open-socket") + do("piece", 0, 4) + do("piece", 0, 10)
        + do("piece", 0, 22) + do("answer", 0),
        "ping-timeout": do("open-socket") + do("piece", 0, 4) + do("piece", 0, 10)
        + do("piece", 0, 22) + pause(5000) + pause(100),
        "events": do("open-socket") + do("piece", 0, 6) + do("piece", 0, 10) + do("piece", 0, 17)
        + do("leave", 0) + pause(20) + pause(15000) + do("close"),
        "page": do("open-port") + do("piece", 0, 24) + do("piece", 0, 10) + do("piece", 0, 22),
        "page-known": do("open-port") + do("piece", 0, 24) + do("piece", 0, 10)
        + do("piece", 0, 25) + do("piece", 0, 22),
        "clients-sorted": do("open-socket") + do("piece", 0, 26) + do("piece", 0, 10)
        + do("piece", 0, 22),
        "two-at-once": do("open-socket")
        + send(0, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 3),
        "smuggle": do("open-socket") + send(0, b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                   b"GET / HTTP/1.1\r\n"),
        "chunks-broken": do("open-socket") + send(0, b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "nul-in-path": do("open-port") + send(0, b"GET /healthz%00 HTTP/1.1\r\nHost: x\r\n\r\n"),
        "slow": do("open-socket") + send(0, b"GET /v1/st") + pause(10000) + pause(1000),
        "half-close": do("open-socket") + do("piece", 0, 21) + do("half-close"),
        "garbage": do("open-port") + send(0, bytes(range(256))) + send(0, b"\r\n\r\n"),
        "long-header": do("open-port") + do("piece", 0, 0) + send(0, b"X: " + b"x" * 1500),
    }
    return seeds


# ---- changes of a registry file, as fuzz_registry_file.c reads them ----

def change(where, content):
    return where.to_bytes(3, "big") + bytes([len(content)]) + content


def registry_changes():
    modes = ["database", "wal", "checksums", "sql"]
    origins = ["closed", "open", "order", "old"]
    seeds = {}
    for i, mode in enumerate(modes):
        for j, origin in enumerate(origins):
            first = bytes([i + 4 * j])
            seeds[f"{mode}-{origin}-none"] = first
            if mode == "sql":
                for column in range(33 if origin == "order" else 0):
                    seeds[f"sql-{origin}-{column}"] = first + bytes(
                        [column, 1, 1 | (column % 16) << 4, column, 2, 2 | (column % 16) << 4,
                         column, 3, 5, 3]) + b"a\0b"
                continue
            if origin != {"database": "closed", "wal": "open", "checksums": "order"}[mode]:
                continue
            for where in (0, 16, 18, 24, 28, 56, 60, 68, 100, 4096, 4096 + 100, 8192, 12288):
                seeds[f"{mode}-{origin}-{where}"] = first + change(where, b"\xff" * 4)
            seeds[f"{mode}-{origin}-cut"] = first + change(0xfff000, b"")
    return seeds


# ---- small texts ----

TEXTS = {
    "ipv4": b"127.0.0.1:1111",
    "ipv6": b"[::1]:1111",
    "unix": b"unix:/tmp/x",
    "mapped": b"[::ffff:1.2.3.4]:1",
    "port-0": b"0.0.0.0:0",
    "port-65536": b"1.2.3.4:65536",
    "zone": b"[fe80::1%eth0]:1",
    "ms": b"250ms",
    "days": b"36500d",
    "most": b"18446744073709551615",
    "overflow": b"18446744073709551616d",
    "size": b"3G",
    "escape": b"\x1b[2J",
    "quotes": b"a \"b\" \\c=d",
    "newline": b"a\nb\r\n",
    "nul": b"a\0b",
    "bidi": "\u202eabc".encode(),
    "overlong": b"\xc0\x80",
    "empty": b"",
    "markup": b"\"><script>",
    "after": b"x after=7 y",
}
GLOBS = {
    "plain": b"web-1\nweb-1\nweb-2",
    "star": b"web-1\n*\nweb-*",
    "class": b"b1\nb[12]\nb[!1]\nb[^1]\n[a-c]?",
    "broken": b"[\n[\n[a\n]\n[]\n[!]\n[a-",
    "comma": b"a\na,b\n",
    "empty": b"a\n\n",
    "many": b"a" * 64 + b"\n" + b"*a" * 40,
    "long": b"a\n" + b"?" * 128 + b"\n" + b"?" * 129,
    "odd": b"a\na b\n\\a\n{a}",
}
STREAMS = {
    "one": b"\0id: 1\nevent: connected\ndata: {}\n\n",
    "crlf": b"\0data: a\r\ndata: b\r\n\r\n",
    "cr": b"\0data: a\r\r",
    "comment": b"\0:\n\n:x\n\n",
    "no-value": b"\0data\n\nevent\n\n",
    "nul": b"\0data: a\0b\n\n",
    "server": bytes([1, 1 << 2, 97, 3, 2, 13, 98, 98, 98, 4, 5, 14, 1, 2, 3, 15, 99, 99, 99, 1,
                     1, 5, 9, 3]),
}


def main():
    write("proto", FROM_CLIENT)
    write("proto", {f"server-{name}": seed for name, seed in FROM_SERVER.items()})
    write("registry_file", registry_changes())
    write("routes", requests())
    write("tls", {f"raw-{name}": b"\0" + seed for name, seed in FROM_CLIENT.items()
                  if name in ("http", "tls-hello", "session", "ssh", "no-line-end")})
    write("tls", {f"end-{i}-{name}": bytes([4 + i]) + seed for name, seed in FROM_CLIENT.items()
                  for i in range(4) if name in ("session", "pipelined", "nul", "id-65")})
    write("text", TEXTS)
    write("glob", GLOBS)
    write("event_stream", STREAMS)
    write("order_body", BODIES)
    write("control", control_scripts())
    write("conn", conn_scripts())
    write("config", CONFIGS)
    write("agent_config", AGENT_CONFIGS)
    write("client_fsm", FROM_SERVER)
    write("server_fsm", session_scripts())


if __name__ == "__main__":
    main()
