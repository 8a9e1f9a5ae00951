"""Fail if a test was skipped both natively and in the guest.

Usage: python tests/guest/skipped.py NATIVE.xml GUEST.xml      (JUnit reports)
"""

import sys
from xml.etree import ElementTree as ET


def outcomes(report: str) -> dict[str, str | None]:
    """Return for each test the reason why it was skipped, None if it was run."""
    cases = ET.parse(report).iter("testcase")
    return {f"{case.get('classname')}.{case.get('name')}": _reason(case) for case in cases}


def _reason(case: ET.Element) -> str | None:
    skipped = case.find("skipped")
    return None if skipped is None else skipped.get("message", "")


def main() -> None:
    native, guest = map(outcomes, sys.argv[1:])
    run = {test for outcome in (native, guest) for test, reason in outcome.items() if reason is None}
    skipped = {test: reason for test, reason in {**guest, **native}.items() if test not in run}
    here, there = (sum(reason is None for reason in outcome.values()) for outcome in (native, guest))
    print(f"{len(run)} tests were run: {here} natively, {there} in the guest; {len(skipped)} skipped in both")
    for test, reason in sorted(skipped.items()):
        print(f"  {test}: {reason}")
    sys.exit(1 if skipped else 0)


main()
