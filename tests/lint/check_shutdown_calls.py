#!/usr/bin/python3
"""
Checks the way to a 130: each step of it is taken in exactly one place of the server's source, so
that whoever reads those knows everything that can ever tell a machine to shut down.
"""

import re

import lint

# What a call looks like, where the only one belongs (a file, and a function in it), and what it is.
# Names that are taken as addresses count as well: a second table of ops would be a second way.
STEPS = [
    (r"\bserver_fsm_order\b", "src/session/session.c", "tell_client",
     "gives a session its order"),
    (r"\btell_client\b", "src/session/session.c", None, "is for the table order_ops"),
    (r"(?:->|\.)\s*tell\s*\)?\s*\(", "src/session/order.c", "tell", "has a client told"),
    (r"\.\s*tell\s*=", "src/session/session.c", None, "says how a client is told"),
    (r"\bSERVER_FSM_ORDER\b", "src/proto/server_fsm.c", "server_fsm_order",
     "is the event behind it"),
    (r"\bPROTO_SHUTDOWN\b", "src/proto/server_fsm.c", "tell", "is the 130 itself"),
]

# Where a name may stand beside its one use: where it is declared, defined, or compared with.
ELSEWHERE = [
    (r"\bserver_fsm_order\b", "src/proto/server_fsm.c", r"^enum \w+ server_fsm_order\("),
    (r"\btell_client\b", "src/session/session.c", r"^static void tell_client\("),
    (r"\bSERVER_FSM_ORDER\b", "src/proto/server_fsm.c", r"\[SERVER_FSM_ORDER\]"),
    (r"\bPROTO_SHUTDOWN\b", "src/session/session.c", r"\bcode == PROTO_SHUTDOWN\b"),
    (r"\bPROTO_SHUTDOWN\b", "src/proto/server_fsm.c", r"->answered\(fsm, PROTO_SHUTDOWN\);"),
    (r"\bPROTO_SHUTDOWN\b", "src/proto/server_fsm.c", r"set_state\(.*, PROTO_SHUTDOWN\);"),
    # The client's side, and the table of codes.
    (r"\bPROTO_SHUTDOWN\b", "src/proto/client_fsm.c", r""),
    (r"\bPROTO_SHUTDOWN\b", "src/proto/proto.c", r""),
]

# The line as a text: src/proto has the codec and both machines, which know it.
TEXT = re.compile(r'"130')

FUNCTION = re.compile(r"^[a-z][^;{}()]*?\b(\w+)\(")


def without_comments(text):
    """The same lines, with blanks for comments and texts."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.DOTALL)


def uses(root):
    """(pattern, path, line number, function, line) of everything that is one of the steps."""
    for path in lint.files(root, ["src"], ".c", ".h"):
        name = path.relative_to(root).as_posix()
        function = None
        for number, line in enumerate(without_comments(path.read_text()).split("\n"), 1):
            begins = FUNCTION.match(line)
            if begins:
                function = begins[1]
            elif line.startswith("}"):
                function = None
            for pattern, *_ in STEPS:
                for _ in re.finditer(pattern, line):
                    yield pattern, name, number, function, line


def check(root):
    complaints = []
    found = {pattern: [] for pattern, *_ in STEPS}
    for pattern, name, number, function, line in uses(root):
        if any(pattern == other and name == path and re.search(form, line)
               for other, path, form in ELSEWHERE):
            continue
        found[pattern].append((name, number, function))
    for pattern, path, wanted, what in STEPS:
        right = [use for use in found[pattern]
                 if use[0] == path and (wanted is None or use[2] == wanted)]
        first = right[0] if right else None
        for use in found[pattern]:
            if use is not first:
                where = f"{path}, {wanted}()" if wanted else path
                complaints.append(f"{use[0]}:{use[1]}: {what}; the only place for that is {where}")
        if not right:
            complaints.append(f"{path}: nothing there {what}: the check has lost its object")
    for path in lint.files(root, ["src"], ".c", ".h"):
        name = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text().split("\n"), 1):
            if TEXT.search(line) and not name.startswith("src/proto/"):
                complaints.append(f"{name}:{number}: has a 130 of its own; the only one is in the "
                                  "table of codes")
    return complaints


RIGHT = {
    "src/session/session.c":
        "static void tell_client(void *user, struct record *record);\n"
        "static const struct order_ops order_ops = {\n    .tell = tell_client,\n};\n"
        "static void on_answered(struct fsm *fsm, int code)\n{\n"
        "    if (code == PROTO_SHUTDOWN)\n        note();\n}\n"
        "/* server_fsm_order(fsm) is called here. */\n"
        "static void tell_client(void *user, struct record *record)\n{\n"
        "    (void)server_fsm_order(&fsm, &env);\n}\n",
    "src/session/order.c":
        "static void tell(struct orders *orders, struct record *record)\n{\n"
        "    orders->ops->tell(orders->user, record);\n}\n",
    "src/proto/server_fsm.c":
        "static step_fn *const steps[] = {\n    [SERVER_FSM_ORDER] = tell,\n};\n"
        "enum server_fsm_result server_fsm_order(struct fsm *fsm, const struct env *env)\n{\n"
        "    return handle(fsm, SERVER_FSM_ORDER, args);\n}\n"
        "static enum result tell(struct fsm *fsm, const struct event_args *args)\n{\n"
        "    set_state(fsm, args->env, SERVER_FSM_LEAVING, PROTO_SHUTDOWN);\n"
        "    send_code(fsm, args->env, PROTO_SHUTDOWN);\n}\n",
}


def with_more(path, text):
    return {**RIGHT, path: RIGHT.get(path, "") + text}


SAMPLES = [
    ("the one way", RIGHT, None),
    ("a second call of the machine", with_more(
        "src/admin/admin.c", "void f(void)\n{\n    server_fsm_order(&fsm, &env);\n}\n"),
     "src/admin/admin.c:3: gives a session its order"),
    ("a second call in the same file", with_more(
        "src/session/session.c", "static void f(void)\n{\n    server_fsm_order(&fsm, &env);\n}\n"),
     "gives a session its order"),
    ("a second call in the same function", {
        **RIGHT, "src/session/session.c": RIGHT["src/session/session.c"].replace(
            "    (void)server", "    server_fsm_order(&fsm, &env);\n    (void)server")},
     "gives a session its order"),
    ("two calls in one line", {
        **RIGHT, "src/session/session.c": RIGHT["src/session/session.c"].replace(
            "(void)server_fsm_order(&fsm, &env)",
            "(void)(server_fsm_order(&fsm, &env) + server_fsm_order(&fsm, &env))")},
     "gives a session its order"),
    ("the address of the machine's function", with_more(
        "src/net/conn.c", "static order_fn *const order = server_fsm_order;\n"),
     "gives a session its order"),
    ("a direct call of tell_client", with_more(
        "src/session/session.c", "static void f(void)\n{\n    tell_client(all, record);\n}\n"),
     "is for the table order_ops"),
    ("a second use of the ops", with_more(
        "src/session/order.c", "static void f(void)\n{\n    orders->ops->tell(user, record);\n}\n"),
     "has a client told"),
    ("a use of the ops elsewhere", with_more(
        "src/admin/routes.c", "void f(void)\n{\n    (order_ops.tell)(user, record);\n}\n"),
     "has a client told"),
    ("a second table of ops", with_more(
        "src/net/server.c", "static const struct order_ops mine = {.tell = my_tell};\n"),
     "says how a client is told"),
    ("the event without the function", with_more(
        "src/proto/server_fsm.c",
        "static void f(void)\n{\n    handle(fsm, SERVER_FSM_ORDER, a);\n}\n"),
     "is the event behind it"),
    ("a 130 from another cell", with_more(
        "src/proto/server_fsm.c",
        "static int ask(void)\n{\n    send_code(fsm, env, PROTO_SHUTDOWN);\n}\n"),
     "is the 130 itself"),
    ("a 130 past the machine", with_more(
        "src/net/conn.c", "void f(void)\n{\n    send_line(proto_code_info(PROTO_SHUTDOWN));\n}\n"),
     "is the 130 itself"),
    ("a 130 as a text", with_more(
        "src/net/conn.c", 'void f(int fd)\n{\n    send(fd, "130: bye\\r\\n", 10, 0);\n}\n'),
     "has a 130 of its own"),
    ("a call that is gone", {
        **RIGHT, "src/session/order.c": "static void tell(void)\n{\n    send(record);\n}\n"},
     "the check has lost its object"),
]

if __name__ == "__main__":
    lint.main("shutdown_calls", check, SAMPLES)
