"""What pyproject.toml cannot say: the launcher is compiled with the package, where there is a C compiler."""

import os
import shutil
import subprocess  # noqa: TID251 - a compiler is a process
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

SOURCE = Path("pycni/server/launcher.c")
# musl's executables start in a third of the time: each of glibc's asks the processor about itself first, and a virtual
# machine has to answer that.
COMPILERS = [os.environ["CC"]] if "CC" in os.environ else ["musl-gcc", "cc"]
FLAGS = ["-Os", "-static", "-s", "-Wall", "-Wextra"]


class BuildWithLauncher(build_py):
    """Builds the modules, and beside them the launcher; without a compiler the executables are Python scripts."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "pycni" / "server" / "launcher"
        for compiler in filter(shutil.which, COMPILERS):
            command = [compiler, *FLAGS, "-o", target, SOURCE]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            self.announce(f"{compiler} makes no launcher: {done.stderr}", level=3)
        self.announce("without the launcher the executables will be Python scripts", level=3)


class MayHoldLauncher(Distribution):
    """A distribution that is of this platform if the launcher can be compiled."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is for this platform alone."""
        return any(map(shutil.which, COMPILERS))


setup(cmdclass={"build_py": BuildWithLauncher}, distclass=MayHoldLauncher)
