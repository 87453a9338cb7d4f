#!/usr/bin/python3
"""
Checks the table of what cliserd must survive: each of its rows has a case in tests/faults, or it is
said here why not. The rows are listed here and nowhere else, so that none can be lost with its
case.
"""

import ast
import re

import lint

# The letter of a kind of fault, what it is, and how many rows it has.
ROWS = [
    ("A", "accepting", 10),
    ("B", "what clients say", 18),
    ("C", "peers and time", 11),
    ("D", "TLS", 7),
    ("E", "reloads and signals", 5),
    ("F", "the registry's file", 8),
    ("G", "memory", 2),
    ("K", "control", 5),
]

# A row that is tried elsewhere, and why.
ELSEWHERE = {}


def row_names():
    return [f"{letter}{number:02}" for letter, _, count in ROWS for number in range(1, count + 1)]


def cases(root):
    """(row, path, line) of each @fault(...) on a test."""
    for path in lint.files(root, ["tests/faults"], ".py"):
        name = path.relative_to(root).as_posix()
        if not re.fullmatch(r"test_\w+\.py", path.name):
            continue
        for node in ast.walk(ast.parse(path.read_text(), name)):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for mark in node.decorator_list:
                if (isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and
                        mark.func.id == "fault"):
                    row = mark.args[0] if mark.args else None
                    yield row.value if isinstance(row, ast.Constant) else None, name, mark.lineno


def check(root):
    complaints = []
    rows = row_names()
    tried = set()
    for row, path, line in cases(root):
        if row in rows:
            tried.add(row)
        else:
            complaints.append(f"{path}:{line}: there is no row {row}; the rows are listed in "
                              "tests/lint/check_fault_rows.py")
    for row in rows:
        if row not in tried and row not in ELSEWHERE:
            complaints.append(f"tests/faults: no case tries {row}")
        elif row in tried and row in ELSEWHERE:
            complaints.append(f"tests/faults: {row} has a case, and yet a reason why it has none")
    return complaints


def tree(*rows, more=""):
    return {"tests/faults/test_all.py": "".join(
        f'@fault("{row}", "what", rounds=1)\ndef test_{row}(case):\n    pass\n\n\n'
        for row in rows) + more}


ALL = row_names()
SAMPLES = [
    ("a case for each row", tree(*ALL), None),
    ("two cases for a row", tree(*ALL, "A01"), None),
    ("a row without a case", tree(*(row for row in ALL if row != "D05")), "no case tries D05"),
    ("the last row without a case", tree(*ALL[:-1]), f"no case tries {ALL[-1]}"),
    ("a case that is no test", tree(*ALL[1:], more='@fault("A01", "x")\ndef helper():\n    pass\n'),
     "no case tries A01"),
    ("a case in a comment", tree(*ALL[1:], more='# @fault("A01", "x")\ndef test_x():\n    pass\n'),
     "no case tries A01"),
    ("a row that is not in the list", tree(*ALL, "A11"), "there is no row A11"),
    ("a row that is not to be read", tree(*ALL, more="@fault(ROW, 1)\ndef test_x():\n    pass\n"),
     "there is no row None"),
    ("no cases at all", {}, "no case tries A01"),
]

if __name__ == "__main__":
    lint.main("fault_rows", check, SAMPLES)
