"""
What the lints have in common: the root, the files, readable complaints, and the self-test, which
runs a lint on broken samples and wants each of them found. One that finds nothing proves nothing.
"""

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files(root, folders, *suffixes):
    """All files below the folders that end in one of the suffixes, in a steady order."""
    found = []
    for folder in folders:
        found += [path for path in (root / folder).rglob("*")
                  if path.is_file() and path.name.endswith(suffixes)]
    return sorted(found)


def main(name, check, samples):
    """
    Runs check(root), which returns complaints, on the tree; or with --self-test on every sample.

    A sample is (what it shows, {path: text}, words that one complaint must have); for a sample that
    is right the words are None, and nothing may be said about it.
    """
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test(name, check, samples))
    if sys.argv[1:]:
        sys.exit(f"usage: {sys.argv[0]} [--self-test]")
    complaints = check(ROOT)
    for complaint in complaints:
        print(complaint)
    print(f"{name}: {len(complaints)} complaints" if complaints else f"{name}: ok")
    sys.exit(1 if complaints else 0)


def self_test(name, check, samples):
    wrong = 0
    for shows, tree, words in samples:
        with tempfile.TemporaryDirectory(prefix="cliser-lint-") as folder:
            root = pathlib.Path(folder)
            for path, text in tree.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(text.encode() if isinstance(text, str) else text)
            complaints = check(root)
        if words is None:
            passed = not complaints
        else:
            passed = any(words in complaint for complaint in complaints)
        if not passed:
            wrong += 1
            print(f"{shows}: wanted {words or 'no complaint'}, got {complaints or 'none'}")
    print(f"{name}: {wrong} of {len(samples)} samples judged wrongly" if wrong
          else f"{name}: ok, {len(samples)} samples judged rightly")
    return 1 if wrong else 0
