#!/usr/bin/python3
"""
Runs the fault suite and makes its table, build/faults/report.md. Called by scripts/faults, which
builds first. Without options: the full set against the release build, then the short set against
the one with sanitizers.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REPORT = ROOT / "build" / "faults" / "report.md"

# As the tests of these builds are run by ctest.
BUILDS = {
    "release": {"CLISER_FAULTS": "full", "CLISER_TIME_SCALE": "1"},
    "asan": {"CLISER_TIME_SCALE": "4", "UBSAN_OPTIONS": "print_stacktrace=1",
             "ASAN_OPTIONS": "strict_string_checks=1:detect_stack_use_after_return=1"},
}


def row_name(text):
    if not re.fullmatch(r"[A-L](\d\d)?", text):
        raise argparse.ArgumentTypeError(f"{text}: a row is a letter and two digits (A01), or all "
                                         "rows of a letter (A)")
    return text


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 is wanted")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description="Tries the faults that cliserd must survive; "
        f"the table goes to {REPORT.relative_to(ROOT)} as well.",
        epilog="Exit status: 0 all passed or could not be tried here; 1 some failed; 2 wrong use.")
    parser.add_argument("rows", metavar="ID", nargs="*", type=row_name,
                        help="only these rows: A01, or A for all of A")
    parser.add_argument("--rounds", metavar="N", type=positive,
                        help="so many rounds in every case, instead of the case's own number")
    parser.add_argument("--build", choices=BUILDS, action="append",
                        help="only this build (release: full set; asan: short set)")
    parser.add_argument("--short", action="store_true", help="the short set everywhere")
    return parser.parse_args()


def run(build, options):
    """Returns pytest's exit code and the rows."""
    rows_file = REPORT.parent / f"{build}.jsonl"
    rows_file.unlink(missing_ok=True)
    environment = {**os.environ, **BUILDS[build], "PYTHONDONTWRITEBYTECODE": "1",
                   "CLISER_BIN": str(ROOT / "build" / build / "bin"),
                   "CLISER_PRELOADS": str(ROOT / "build" / build / "tests"),
                   "CLISER_FAULT_REPORT": str(rows_file),
                   "CLISER_FAULTS_ROWS": ",".join(options.rows)}
    if options.short:
        environment["CLISER_FAULTS"] = "short"
    if options.rounds:
        environment["CLISER_FAULTS_ROUNDS"] = str(options.rounds)
    code = subprocess.run([sys.executable, "-m", "pytest", "-v", "--tb=short", "-rs",
                           "-p", "no:cacheprovider", str(HERE)], env=environment).returncode
    rows = []
    if rows_file.exists():
        rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    return code, [{"build": build, **row} for row in rows]


def shortened(notes):
    """Of what each of many rounds has said, the first ones; and what the oracle said at the end."""
    return notes if len(notes) <= 7 else [*notes[:4], "…", *notes[-2:]]


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(rows, seconds):
    counts = {outcome: sum(row["outcome"] == outcome for row in rows)
              for outcome in ("passed", "failed", "skipped")}
    lines = [
        "# Faults", "",
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {seconds / 60:.0f} min: " +
        ", ".join(f"{count} {outcome}" for outcome, count in counts.items()), "",
        "| id | fault | build | rounds | result | seconds | notes |",
        "|---|---|---|--:|---|--:|---|"]
    for row in sorted(rows, key=lambda row: (row["row"], row["build"] != "release", row["test"])):
        found = re.search(r"\[(.*)\]", row["test"])
        what = f"{row['what']} ({found[1]})" if found else row["what"]
        lines.append("| " + " | ".join(map(cell, (
            row["row"], what, row["build"], row["rounds"], row["outcome"], row["seconds"],
            "; ".join(shortened(row["notes"]))))) + " |")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    began = time.monotonic()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    codes = []
    for build in options.build or BUILDS:
        code, more = run(build, options)
        codes.append(code)
        rows += more
    text = table(rows, time.monotonic() - began)
    REPORT.write_text(text, encoding="utf-8")
    print("\n" + text)
    print(f"({REPORT.relative_to(ROOT)})")
    if not rows:
        sys.exit("scripts/faults: no such row")
    sys.exit(any(codes) or any(row["outcome"] == "failed" for row in rows))


if __name__ == "__main__":
    main()
