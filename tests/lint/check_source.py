#!/usr/bin/python3
"""
Checks what no compiler looks at: line length, tabs, blanks at ends, leftover notes, that each file
begins by saying what it is for, and that no unit test is left out of the list that is built.
"""

import re

import lint

C_FOLDERS = ["include", "src", "client", "tests"]
MAX_COLUMNS = 100

# Put together, or this file would be found.
LEFTOVER = re.compile(rf"\b({'|'.join(['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'])})\b")

# How a file has to begin, by the end of its name.
HEADERS = {
    (".c", ".h"): (re.compile(r"\s*/\*"), "a comment that says what the file is for"),
    (".py",): (re.compile(r'(#!.*\n)?"""'), "a docstring that says what the file is for"),
    (".cmake", "CMakeLists.txt"): (re.compile(r"#|cmake_minimum_required"), "a comment"),
}


def is_script(path):
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def collect(root):
    paths = lint.files(root, C_FOLDERS, ".c", ".h")
    paths += lint.files(root, ["tests", "scripts"], ".py")
    paths += lint.files(root, ["src", "client", "tests", "cmake"], ".cmake", "CMakeLists.txt")
    paths += [path for path in lint.files(root, ["scripts", "tests", ".ci"], "")
              if "." not in path.name and path.name != "CMakeLists.txt" and is_script(path)]
    return sorted(set(paths))


def check_file(root, path):
    name = path.relative_to(root).as_posix()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return [f"{name}: is not UTF-8: {error}"]
    complaints = []
    is_table = False

    for number, line in enumerate(text.split("\n"), 1):
        where = f"{name}:{number}"
        # Tables are laid out by hand, as wide as their columns need.
        if re.search(r"clang-format (on|off)", line):
            is_table = "off" in line
        if len(line) > MAX_COLUMNS and not is_table:
            complaints.append(f"{where}: {len(line)} columns; a line has at most {MAX_COLUMNS}")
        if "\t" in line:
            complaints.append(f"{where}: a tab; indent by blanks")
        if line != line.rstrip():
            complaints.append(f"{where}: blanks at the end of the line")
        if LEFTOVER.search(line):
            complaints.append(f"{where}: {LEFTOVER.search(line)[1]}: do it, or leave it out")
    if text and not text.endswith("\n"):
        complaints.append(f"{name}: no newline at the end of the file")

    for suffixes, (begins, wanted) in HEADERS.items():
        if path.name.endswith(suffixes) and not begins.match(text):
            complaints.append(f"{name}: must begin with {wanted}")
    if "." not in path.name and not re.match(r"#!.*\n# ", text):
        complaints.append(f"{name}: must begin with a comment that says what the script is for")
    return complaints


def check_unit_tests(root):
    """A test that CMake does not know would never run, and nobody would notice."""
    cmake = root / "tests/unit/CMakeLists.txt"
    listed = re.findall(r"^cliser_unit_test\((\w+)", cmake.read_text() if cmake.is_file() else "",
                        re.MULTILINE)
    return [f"{path.relative_to(root).as_posix()}: is not in tests/unit/CMakeLists.txt"
            for path in lint.files(root, ["tests/unit"], ".c")
            if path.stem.startswith("test_") and path.stem[len("test_"):] not in listed]


def check(root):
    complaints = []
    for path in collect(root):
        complaints += check_file(root, path)
    return complaints + check_unit_tests(root)


SAMPLES = [
    ("files in order", {
        "src/base/log.c": "/* A sample. */\n" + "x" * 100 + "\n",
        "tests/lint/check.py": '#!/usr/bin/python3\n"""A sample."""\n',
        "src/CMakeLists.txt": "# A sample.\n",
        "scripts/run": "#!/bin/bash\n# A sample.\n",
    }, None),
    ("a unit test that is built", {
        "tests/unit/CMakeLists.txt": "# A sample.\ncliser_unit_test(log USES cliser_base)\n",
        "tests/unit/test_log.c": "/* A sample. */\n",
    }, None),
    ("a unit test that is forgotten", {
        "tests/unit/CMakeLists.txt": "# A sample.\ncliser_unit_test(log USES cliser_base)\n",
        "tests/unit/test_lo.c": "/* A sample. */\n",
    }, "is not in tests/unit/CMakeLists.txt"),
    ("a long line", {"src/base/log.c": "/* A sample. */\n" + "x" * 101 + "\n"}, "101 columns"),
    ("columns are characters", {"src/base/log.c": "/* A sample. */\n" + "─" * 100 + "\n"}, None),
    ("a table as wide as it needs", {
        "src/base/log.c": "/* A sample. */\n/* clang-format off */\n" + "x" * 130
                          + "\n/* clang-format on */\n",
    }, None),
    ("a long line behind a table", {
        "src/base/log.c": "/* A sample. */\n/* clang-format off */\n/* clang-format on */\n"
                          + "x" * 130 + "\n",
    }, "130 columns"),
    ("a tab", {"client/agent.c": "/* A sample. */\n\tint x;\n"}, "a tab"),
    ("blanks at the end", {"client/agent.c": "/* A sample. */\nint x; \n"}, "blanks at the end"),
    ("a leftover note in C", {"tests/unit/a.c": "/* A sample. */\n/* TO" "DO: all of it */\n"},
     "do it, or leave it out"),
    ("a leftover note in a script", {"scripts/run": "#!/bin/bash\n# A sample.\n# FIX" "ME\n"},
     "do it, or leave it out"),
    ("C without a header comment", {"src/base/log.c": '#include "base/log.h"\n'},
     "must begin with"),
    ("Python without a docstring", {"tests/blackbox/a.py": "import os\n"}, "must begin with"),
    ("a script that does not say what it is", {"scripts/run": "#!/bin/bash\nset -e\n"},
     "must begin with"),
    ("no newline at the end", {"src/base/log.c": "/* A sample. */"}, "no newline"),
    ("bytes that are no UTF-8", {"src/base/log.c": b"/* \xff */\n"}, "is not UTF-8"),
]

if __name__ == "__main__":
    lint.main("source", check, SAMPLES)
