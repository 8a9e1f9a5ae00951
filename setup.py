"""What pyproject.toml cannot say: the launcher is compiled with the package, where there is a C compiler."""

import os
import shutil
import subprocess  # noqa: TID251 - a compiler is a process
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

SOURCE = Path("pycni/server/launcher.c")
COMPILER = os.environ.get("CC", "cc")
FLAGS = ["-Os", "-static", "-s", "-Wall", "-Wextra"]


class BuildWithLauncher(build_py):
    """Builds the modules, and beside them the launcher; without a compiler the executables are Python scripts."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode or not shutil.which(COMPILER):
            return
        target = Path(self.build_lib) / "pycni" / "server" / "launcher"
        done = subprocess.run([COMPILER, *FLAGS, "-o", target, SOURCE], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.announce(f"no launcher, the executables will be Python scripts: {done.stderr}", level=3)


class MayHoldLauncher(Distribution):
    """A distribution that is of this platform if the launcher can be compiled."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is for this platform alone."""
        return shutil.which(COMPILER) is not None


setup(cmdclass={"build_py": BuildWithLauncher}, distclass=MayHoldLauncher)
