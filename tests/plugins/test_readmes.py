"""The example configurations of the plugins' READMEs, run with `pycni try`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
EVERYDAY = {"portmap", "macvlan"}
KERNEL_FEATURES = {"dummy", "ipvlan", "vlan", "vrf"}
PLUGIN_NAMES = sorted(path.parent.name for path in PLUGINS.glob("*/README.md"))


def marked(plugin: str) -> Any:
    """Return the plugin as a test parameter with its marks."""
    marks = [] if plugin in EVERYDAY else [pytest.mark.exhaustive]
    return pytest.param(
        plugin, marks=[*marks, *([pytest.mark.needs_kernel(plugin)] if plugin in KERNEL_FEATURES else [])]
    )


def example(plugin: str) -> str:
    """Return the first JSON document of the plugin's README."""
    found = re.search(r"```json\n(.*?)```", (PLUGINS / plugin / "README.md").read_text(), re.DOTALL)
    assert found, f"the README of {plugin} has no configuration"
    return found[1]


@pytest.mark.parametrize("plugin", [marked(name) for name in PLUGIN_NAMES])
def test_example_of_the_readme_passes_pycni_try(plugin: str, tmp_path: Path) -> None:
    text = example(plugin)
    path = tmp_path / (f"{plugin}.conflist" if '"plugins"' in text else f"{plugin}.conf")
    path.write_text(text)
    command = [sys.executable, "-m", "pycni", "try", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ADD" in done.stdout + done.stderr
