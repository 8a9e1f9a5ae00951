"""Checks of a client script: each result is printed, failures are counted."""

import sys
import time
from collections.abc import Callable


class Checks:
    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, name: str, good: object, found: object = "") -> None:
        self.failed += not good
        finding = f"  ok   {name}" if good else f"  FAIL {name} :: {str(found)[-900:]}"
        print(time.strftime("[%H:%M:%S]"), finding, flush=True)

    def eventually(self, name: str, attempt: Callable[[], tuple[object, object]]) -> None:
        """Repeat an attempt for up to twenty seconds. It returns whether it succeeded, and details."""
        deadline = time.monotonic() + 20
        good, found = attempt()
        while not good and time.monotonic() < deadline:
            time.sleep(0.1)
            good, found = attempt()
        self(name, good, found)

    def finish(self) -> None:
        sys.exit(1 if self.failed else 0)
