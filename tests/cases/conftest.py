"""The cases' executables, and their server where the cases have their sandbox."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_cases.py")


@pytest.fixture(scope="session", params=["served", pytest.param("one-shot", marks=pytest.mark.exhaustive)])
def bin_directory(
    request: pytest.FixtureRequest, executables: Callable[..., AbstractContextManager[Path]]
) -> Iterator[Path]:
    """Every plugin of this installation, as executables: with a server in the sandbox, and without one."""
    # The runner imports what stands beside it, which PYTHONSAFEPATH (of scripts/test) would forbid.
    sandbox = ["env", "-u", "PYTHONSAFEPATH", sys.executable, RUNNER, "--bin", "/", "--then"]
    with executables(way=request.param, before_server=sandbox) as directory:
        yield directory
