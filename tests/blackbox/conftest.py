"""The black-box tests' fixtures, which are those of the fault suite as well."""

import pytest

from server_fixtures import bin_dir, ca, folder, server, show_logs, start_server  # noqa: F401


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    show_logs(item, (yield).get_result())
