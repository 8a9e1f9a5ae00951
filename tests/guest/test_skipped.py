"""skipped.py fails if a test was skipped natively and in the guest."""

import subprocess
import sys
from pathlib import Path

SKIPPED = Path(__file__).with_name("skipped.py")


def report(path: Path, **tests: str) -> Path:
    cases = [
        f'<testcase classname="m" name="{name}">{f"""<skipped message="{reason}"/>""" if reason else ""}</testcase>'
        for name, reason in tests.items()
    ]
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def compared(native: Path, guest: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, SKIPPED, native, guest], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_skip_in_both_reports_is_listed_with_its_reason(tmp_path: Path) -> None:
    native = report(tmp_path / "native.xml", a="", b="needs a kernel with vlan", c="needs a kernel with vlan")
    guest = report(tmp_path / "guest.xml", b="", c="needs a kernel with vlan")
    status, output = compared(native, guest)
    assert status == 1
    assert "1 skipped in both" in output
    assert "m.c: needs a kernel with vlan" in output
    assert "m.b" not in output


def test_success_if_every_test_ran_in_one_of_the_reports(tmp_path: Path) -> None:
    native = report(tmp_path / "native.xml", a="", b="needs a kernel with vlan")
    status, output = compared(native, report(tmp_path / "guest.xml", b=""))
    assert (status, output) == (0, "2 tests were run: 1 natively, 1 in the guest; 0 skipped in both\n")
