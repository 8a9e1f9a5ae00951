"""Build steps that pyproject.toml cannot describe: compile the launcher if there is a C compiler, and tag the wheel."""

import os
import platform
import shutil
import subprocess  # noqa: TID251 - runs the compiler
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
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
        if self.editable_mode:
            super().run()
            return
        # setuptools would install modules that an earlier build has left here and that no longer exist.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        target = Path(self.build_lib) / "pycni" / "server" / "launcher"
        for compiler in filter(shutil.which, COMPILERS):
            command = [compiler, *FLAGS, "-o", target, SOURCE]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            self.announce(f"{compiler} cannot compile the launcher: {done.stderr}", level=3)
        self.announce("no launcher: the installed executables will be Python scripts", level=3)


class WheelWithLauncher(bdist_wheel):
    """A wheel for every Python 3. The launcher is static, so it runs with any C library of this architecture."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, ABI and platform (PEP 425, PEP 600, PEP 656)."""
        if self.root_is_pure:
            return super().get_tag()
        machine = platform.machine()
        return "py3", "none", f"manylinux2014_{machine}.manylinux_2_17_{machine}.musllinux_1_1_{machine}"


class MayHoldLauncher(Distribution):
    """A platform-specific distribution if the launcher can be compiled, else a pure one."""

    def has_ext_modules(self) -> bool:
        """Return whether the wheel is platform-specific."""
        return any(map(shutil.which, COMPILERS))


setup(cmdclass={"build_py": BuildWithLauncher, "bdist_wheel": WheelWithLauncher}, distclass=MayHoldLauncher)
