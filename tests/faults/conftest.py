"""
The fault suite's fixtures and its table.

A case is marked with oracle.fault(), takes the fixture `case`, and may do what it wants to the
server that it gets from case.start(). When it is through, the oracle is asked. With
CLISER_FAULT_REPORT each case leaves a line of JSON in that file, which scripts/faults makes its
table of.
"""

import json
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))
pytest.register_assert_rewrite("harness", "control", "oracle", "pki")

import oracle  # noqa: E402
from server_fixtures import bin_dir, ca, folder, show_logs, start_server  # noqa: E402, F401


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(row, what, rounds): a case of the fault suite")


def pytest_collection_modifyitems(config, items):
    """Keeps the rows that were asked for, and of those the ones with a round in this set."""
    wanted = tuple(filter(None, os.environ.get("CLISER_FAULTS_ROWS", "").split(",")))
    kept, left_out = [], []
    for item in items:
        mark = item.get_closest_marker("fault")
        assert mark, f"{item.nodeid} does not say which fault it is"
        fits = mark.kwargs["rounds"] and mark.kwargs["row"].startswith(wanted or "")
        (kept if fits else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session, exitstatus):
    """A file that has no case in this set is not a failure."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture
def case(request, start_server):  # noqa: F811
    made = request.node.stash[_case] = oracle.Case(
        start_server, request.node.get_closest_marker("fault").kwargs["rounds"])
    yield made
    try:
        if request.node.stash.get(_outcome, "passed") == "passed":
            assert made.server, "the case has started no server"
            made.check()
    finally:
        if made.witnesses:
            made.witnesses.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    show_logs(item, report)
    stash = item.stash
    stash[_seconds] = stash.get(_seconds, 0.0) + report.duration
    if report.when == "setup" or not report.passed:
        stash[_outcome] = report.outcome
    if report.skipped:
        stash[_why] = str(call.excinfo.value).removeprefix("Skipped: ")
    elif report.failed:
        stash[_why] = str(call.excinfo.value).strip().splitlines()[0][:200]
    if report.when == "teardown":
        _write_row(item)


def _write_row(item):
    path = os.environ.get("CLISER_FAULT_REPORT")
    mark = item.get_closest_marker("fault")
    if not path or not mark:
        return
    made = item.stash.get(_case, None)
    why = item.stash.get(_why, None)
    row = {**mark.kwargs, "test": item.name, "outcome": item.stash[_outcome],
           "seconds": round(item.stash[_seconds], 1),
           "notes": [why] if why else made.notes if made else []}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


_case = pytest.StashKey()
_outcome = pytest.StashKey()
_seconds = pytest.StashKey()
_why = pytest.StashKey()
