"""Build step that pyproject.toml cannot describe: compile the launcher, if there is a C compiler."""

import os
import shutil
import subprocess  # noqa: TID251 - runs the compiler
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

SOURCE = Path("pycni/server/launcher.c")
# Executables of musl start in a third of the time. glibc runs CPUID at the start, which is slow in virtual machines.
COMPILERS = [os.environ["CC"]] if "CC" in os.environ else ["musl-gcc", "cc"]
FLAGS = ["-Os", "-static", "-s", "-Wall", "-Wextra"]


class BuildWithLauncher(build_py):
    """Build the package and the launcher. Without a compiler, the installed executables are Python scripts."""

    def run(self) -> None:
        """Build the modules and the launcher."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "pycni" / "server" / "launcher"
        for compiler in filter(shutil.which, COMPILERS):
            command = [compiler, *FLAGS, "-o", target, SOURCE]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            self.announce(f"{compiler} cannot compile the launcher: {done.stderr}", level=3)
        self.announce("no launcher: the installed executables will be Python scripts", level=3)


class MayHoldLauncher(Distribution):
    """A platform-specific distribution if the launcher can be compiled, else a pure one."""

    def has_ext_modules(self) -> bool:
        """Return whether the wheel is platform-specific."""
        return any(map(shutil.which, COMPILERS))


setup(cmdclass={"build_py": BuildWithLauncher}, distclass=MayHoldLauncher)
