"""
packaging/: the script that upssched runs when the power fails, with a real cliserd and real agents,
and what the files beside it say. NUT is not needed: upsmon is a file that says it was called.
"""

import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

from harness import BIN, PASSWORD, ROOT, limit, needs_root, wait_until, write_secret

NUT = ROOT / "packaging" / "nut"
SCRIPT = NUT / "cliser-shutdown"

# A machine that goes down when told takes so long: its agent ends with it.
GOES = "sleep 0.2; kill $PPID"
STAYS = "true"


class House:
    """A server, machines with agents, and the script with a configuration of its own."""

    def __init__(self, folder, start_server):
        self.folder = folder
        self.start_server = start_server
        self.server = start_server({"control": {"socket": "control.sock"}})
        self.socket = self.server.folder / "control.sock"
        self.fsd_mark = folder / "fsd"
        self.config = folder / "nut-shutdown.conf"
        self.mark = folder / "cliser-on-battery"
        self.agents = []
        self.scripts = []
        write_secret(folder / "password", PASSWORD + "\n")
        self.configure()

    def configure(self, **keys):
        keys = {"CLISERCTL": BIN / "cliserctl", "SOCKET": self.socket, "STATE": self.folder,
                "WAVES": "web-* db-*", "GRACE": "20s", "SETTLE": 0, "TRIES": 20, "PAUSE": 0.2,
                "FSD_COMMAND": f"touch {self.fsd_mark}", **keys}
        self.config.write_text("".join(f"{key}='{value}'\n" for key, value in keys.items()))

    def machine(self, cid, command=GOES):
        agent = subprocess.Popen(
            [BIN / "cliser-agent", "--server", f"127.0.0.1:{self.server.port}", "--id", cid,
             "--password-file", self.folder / "password", "--on-shutdown", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.agents.append(agent)
        self.server.wait_log(rf" connected .*cid={cid} ")
        return agent

    def start(self, *args, wrap=()):
        script = subprocess.Popen(
            [*wrap, SCRIPT, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "CLISER_NUT_CONFIG": str(self.config)})
        self.scripts.append(script)
        return script

    def run(self, *args):
        return self.end(self.start(*args))

    def end(self, script):
        """Its exit status and what it said, once it has ended."""
        said, _ = script.communicate(timeout=limit(20))
        return script.returncode, said

    def ctl(self, *args):
        return subprocess.run([BIN / "cliserctl", "--socket", self.socket, *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=limit(20))

    def told(self):
        """Who was told, in this order."""
        return re.findall(r" told order=\d+ cid=(\S+)", self.server.log_text())

    def close(self):
        for process in [*self.scripts, *self.agents]:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def house(folder, start_server):
    house = House(folder, start_server)
    yield house
    house.close()


def test_waves_go_one_after_the_other_and_this_host_last(house):
    web, db, other = (house.machine(cid) for cid in ("web-1", "db-1", "lab-1"))

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert house.told() == ["web-1", "db-1"]
    assert web.wait(limit(5)) == 0 and db.wait(limit(5)) == 0 and other.poll() is None
    assert house.fsd_mark.exists()
    log = house.server.log_text()
    assert log.index("reason=shutdown") < log.index("cid=db-1 wave=2"), "db-1 was told too early"
    assert "now this host" in said
    # A hold would tell the machines that come back with the power.
    house.server.wait_log(" order_ended .*state=done")


def test_survivors_do_not_keep_this_host_up(house):
    house.configure(GRACE="300ms")
    house.machine("web-1", STAYS)

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "web-1" in said and "some are still up" in said
    assert house.fsd_mark.exists()


def test_nobody_there_does_not_keep_this_host_up(house):
    house.configure(HOLD="0s")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "nobody who matches is connected" in said
    assert house.fsd_mark.exists()


def test_power_that_is_back_cancels_the_order(house):
    house.machine("web-1", STAYS)
    house.machine("db-1")
    script = house.start("-f", "onbatt")
    house.server.wait_log(" told .*cid=web-1 ")

    status, said = house.run("-f", "online")

    assert status == 0, said
    status, said = house.end(script)
    assert status == 1 and "cancelled" in said, said
    assert house.told() == ["web-1"]
    assert not house.fsd_mark.exists()


def test_power_that_is_back_while_machines_settle_keeps_this_host_up(house):
    house.configure(SETTLE=3)
    house.machine("web-1")
    script = house.start("-f", "onbatt")
    house.server.wait_log(" order_ended ")

    status, said = house.run("-f", "online")

    assert status == 0 and "no order is under way" in said, said
    status, said = house.end(script)
    assert status == 1 and "stays up" in said, said
    assert not house.fsd_mark.exists()


def test_power_that_is_back_leaves_an_operators_order_alone(house):
    house.machine("web-1", STAYS)
    operator = subprocess.Popen(
        [BIN / "cliserctl", "--socket", house.socket, "shutdown", "web-1", "--yes"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    house.agents.append(operator)
    house.server.wait_log(" told .*cid=web-1 ")
    # Somebody else's: orders bear the uid that gave them, and for the script "id" decides its own.
    fake = house.folder / "bin"
    fake.mkdir()
    (fake / "id").write_text("#!/bin/sh\necho 4711\n")
    (fake / "id").chmod(0o755)
    house.configure(PATH=f"{fake}:{os.environ['PATH']}")

    status, said = house.run("-f", "online")

    assert status == 0 and "not ours (uid" in said, said
    assert not house.server.find_log("order_cancelled")
    house.ctl("shutdown-cancel")


def test_order_of_somebody_else_is_waited_for(house):
    house.machine("web-1", STAYS)
    house.machine("db-1")
    house.agents.append(subprocess.Popen(
        [BIN / "cliserctl", "--socket", house.socket, "shutdown", "web-1", "--grace", "1s",
         "--yes"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL))
    house.server.wait_log(" told .*cid=web-1 ")
    house.configure(GRACE="300ms")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "an order is running" in said
    assert house.told()[-1] == "db-1"
    assert not house.server.find_log("order_cancelled")


def test_order_that_only_holds_is_ended(house):
    house.ctl("shutdown", "nobody", "--hold", "1h", "--yes")
    house.machine("web-1")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "holding" in said and house.told() == ["web-1"]


def test_low_battery_tells_all_at_once_whatever_is_under_way(house):
    house.machine("web-1", STAYS)
    db = house.machine("db-1")
    slow = house.start("-f", "onbatt")
    house.server.wait_log(" told .*cid=web-1 ")
    house.configure(CRITICAL_GRACE="1s")

    status, said = house.run("-f", "critical")

    assert status == 0, said
    assert db.wait(limit(5)) == 0
    status, said = house.end(slow)
    assert status == 1 and "all have been told at once" in said, said
    assert not house.server.find_log(r"order_started order=3"), "it began again"
    assert not house.fsd_mark.exists(), "a low battery is upsmon's own affair"


def test_server_that_is_away_is_tried_again(house):
    house.machine("web-1")
    house.server.kill()
    script = house.start("-f", "onbatt")
    time.sleep(0.5)
    listen = f"127.0.0.1:{house.server.port}"
    house.server = house.start_server({"server": {"listen": listen},
                                       "control": {"socket": "control.sock"}},
                                      folder=house.server.folder)

    status, said = house.end(script)

    assert status == 0, said
    assert "trying again" in said
    assert house.fsd_mark.exists()


def test_server_that_stays_away_leaves_this_host_to_upsmon(house):
    house.configure(TRIES=3)
    house.server.kill()

    status, said = house.run("-f", "onbatt")

    assert status == 1 and "given up after 3 tries" in said, said
    assert "this host stays up" in said
    assert not house.fsd_mark.exists()


def test_without_a_place_to_remember_it_does_its_work_all_the_same(house):
    house.configure(STATE=house.folder / "nowhere")
    house.machine("web-1")

    status, said = house.run("-f", "onbatt")

    assert status == 0 and "will not see when the power is back" in said, said
    assert house.told() == ["web-1"] and house.fsd_mark.exists()


def test_slip_in_a_time_keeps_to_the_waves(house):
    house.configure(GRACE="90", WAVES="web-* db-*")
    house.machine("web-1")
    house.machine("lab-1")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "trying the waves with a grace of 60s" in said and "ordering everybody" not in said
    assert house.told() == ["web-1"]
    assert house.fsd_mark.exists()


def test_slip_in_the_configuration_shuts_everybody_down(house):
    house.configure(WAVES="web-*,,db-*")
    house.machine("web-1")
    house.machine("lab-1")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "ordering everybody" in said
    assert sorted(house.told()) == ["lab-1", "web-1"]
    assert house.fsd_mark.exists()


@pytest.mark.parametrize("slip, complaint", [
    ("GRACE='4s\n", "nterminated"),
    ("GRACE=$NO_SUCH_VARIABLE\n", "NO_SUCH_VARIABLE"),
])
def test_unreadable_configuration_gives_way_to_the_defaults(house, slip, complaint):
    fake = house.folder / "bin"
    fake.mkdir()
    (fake / "cliserctl").write_text(f'#!/bin/sh\necho "$@" >> {house.folder}/asked\n')
    (fake / "cliserctl").chmod(0o755)
    house.config.write_text("WAVES='web-*'\n" + slip)

    script = subprocess.run([SCRIPT, "-f", "critical"], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, timeout=limit(20),
                            env={"CLISER_NUT_CONFIG": str(house.config),
                                 "PATH": f"{fake}:{os.environ['PATH']}"})

    assert script.returncode == 0, script.stderr
    assert "going on with the defaults" in script.stderr and complaint in script.stderr
    assert (house.folder / "asked").read_text() == (
        "--socket /run/cliser/cliser.sock shutdown --wave * --grace 20s --hold 1s --yes\n")


def test_what_should_be_a_number_and_is_none_gives_way_to_the_default(house):
    house.configure(TRIES="abc", PAUSE="x", SETTLE="0")
    house.machine("web-1")

    status, said = house.run("-f", "onbatt")

    assert status == 0, said
    assert "TRIES in" in said and "going on with 30" in said and "PAUSE in" in said
    assert house.told() == ["web-1"] and house.fsd_mark.exists()


def test_command_that_cannot_take_this_host_down_is_named(house):
    house.configure(FSD_COMMAND="no-such-command now")
    house.machine("web-1")

    status, said = house.run("-f", "onbatt")

    assert status == 1 and "stays up" in said and "127" in said, said


def test_patterns_are_not_those_of_the_folder(house):
    (house.folder / "web-of-lies").touch()
    house.machine("web-1")
    script = subprocess.run([SCRIPT, "-f", "onbatt"], cwd=house.folder, capture_output=True,
                            text=True, stdin=subprocess.DEVNULL, timeout=limit(20),
                            env={**os.environ, "CLISER_NUT_CONFIG": str(house.config)})

    assert script.returncode == 0, script.stderr
    assert house.told() == ["web-1"]


def test_it_returns_at_once_and_works_in_the_background(house):
    """upssched waits for its script, and sees no timer and no event meanwhile."""
    agent = house.machine("web-1", "sleep 2; kill $PPID")
    began = time.monotonic()

    status, said = house.run("onbatt")

    assert status == 0 and said == ""
    assert time.monotonic() - began < limit(1.5), "it waited for the order"
    assert agent.wait(limit(10)) == 0
    wait_until(house.fsd_mark.exists, 10, "upsmon -c fsd")


@pytest.mark.parametrize("args", [[], ["reboot"], ["-f"], ["onbatt", "online"], ["-x", "onbatt"]])
def test_nothing_but_its_three_words_does_anything(house, args):
    house.machine("web-1")

    status, said = house.run(*args)

    assert status == 2 and "usage:" in said
    assert house.told() == [] and not house.fsd_mark.exists()


def test_shipped_configuration_is_the_scripts_defaults():
    text = SCRIPT.read_text()
    shipped = re.findall(r"^([A-Z_]+=.*)$", (NUT / "nut-shutdown.conf").read_text(), re.MULTILINE)

    assert len(shipped) >= 10
    for line in shipped:
        assert f"\n{line}\n" in text, line


def test_upssched_gives_only_words_that_the_script_knows():
    known = set(re.findall(r"^    (\w+)\) action=", SCRIPT.read_text(), re.MULTILINE))
    given = set(re.findall(r"^AT \w+ \* (?:START-TIMER|EXECUTE) (\w+)",
                           (NUT / "upssched.conf").read_text(), re.MULTILINE))

    assert given == known == {"onbatt", "critical", "online"}


def test_script_is_plain_sh(tmp_path):
    assert subprocess.run(["sh", "-n", SCRIPT], check=False).returncode == 0
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    found = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("unit", sorted((ROOT / "packaging/systemd").glob("*.service")),
                         ids=lambda path: path.name)
def test_units_are_what_systemd_understands(unit, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    text = unit.read_text()
    for program in ("cliserd", "cliser-agent"):
        text = text.replace(f"/usr/bin/{program} ", f"{BIN / program} ")
    copy = tmp_path / unit.name
    copy.write_text(text)

    result = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)

    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert complaints == []


SERVER_UNIT = ROOT / "packaging/systemd/cliserd.service"


def test_unit_of_the_server_exposes_no_more_than_the_docs_say():
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", SERVER_UNIT],
                            capture_output=True, text=True)
    score = re.search(r"exposure level for cliserd.service: ([\d.]+)", result.stdout)
    if not score:
        pytest.skip("this systemd-analyze judges no units that are not loaded")
    operations = (ROOT / "docs/operations.md").read_text()
    said = re.search(r"gives the unit an exposure of \*\*([\d.]+)\*\*", operations)[1]

    assert float(score[1]) <= float(said), result.stdout


@needs_root
def test_capabilities_of_the_unit_are_enough_for_port_and_user(folder, start_server):
    """A port below 1024, a socket in a folder of the other user, and becoming that user."""
    kept = re.search(r"^CapabilityBoundingSet=(.*)$", SERVER_UNIT.read_text(), re.MULTILINE)[1]
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in kept.split())
    wrap = ["setpriv", f"--bounding-set=-all,{kept}"]
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv here")
    os.chown(folder, 65534, 65534)
    folder.chmod(0o700)

    server = start_server({"server": {"user": "nobody",
                                      "listen": f"127.0.0.1:872, unix:{folder}/wire.sock"}},
                          wrap=wrap)

    status = (pathlib.Path("/proc") / str(server.pid) / "status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^Uid:\s+65534\b", status, re.MULTILINE)


def test_unit_lets_the_server_install_its_own_filter():
    """Systemd's group of calls for services does not have that one."""
    allowed = re.findall(r"^SystemCallFilter=([^~].*)$", SERVER_UNIT.read_text(), re.MULTILINE)
    assert "seccomp" in " ".join(allowed).split()
