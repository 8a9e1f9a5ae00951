"""Executables for the conformance cases, with a server in the sandbox of the cases."""

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
    """Install every plugin as executables: with a server in the sandbox, and without a server."""
    # The runner imports modules beside it, which PYTHONSAFEPATH (set by scripts/test) forbids.
    sandbox = ["env", "-u", "PYTHONSAFEPATH", sys.executable, RUNNER, "--bin", "/", "--then"]
    with executables(mode=request.param, before_server=sandbox) as directory:
        yield directory
