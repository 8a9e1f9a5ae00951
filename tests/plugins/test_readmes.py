"""The example configurations of the plugins' READMEs, run with `pycni try`.

Examples that need a master, a device or a server are tested with their plugins.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
TESTED_WITH_PLUGIN = {"dhcp", "dummy", "host_device", "ipvlan", "macvlan", "tap", "vlan", "vrf"}
PLUGIN_NAMES = sorted(path.parent.name for path in PLUGINS.glob("*/README.md"))
OTHERS = [name for name in PLUGIN_NAMES if name not in {*TESTED_WITH_PLUGIN, "portmap"}]


def example(plugin: str) -> str:
    """Return the first JSON document of the plugin's README."""
    found = re.search(r"```json\n(.*?)```", (PLUGINS / plugin / "README.md").read_text(), re.DOTALL)
    assert found, f"the README of {plugin} has no configuration"
    return found[1]


@pytest.mark.parametrize("plugin", ["portmap", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in OTHERS)])
def test_example_of_the_readme_passes_pycni_try(plugin: str, tmp_path: Path) -> None:
    text = example(plugin)
    if plugin == "flannel":
        env = tmp_path / "subnet.env"
        env.write_text(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
        text = text.replace('"type": "flannel"', f'"type": "flannel", "subnetFile": "{env}"')
    path = tmp_path / (f"{plugin}.conflist" if '"plugins"' in text else f"{plugin}.conf")
    path.write_text(text)
    command = [sys.executable, "-m", "pycni", "try", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ADD" in done.stdout + done.stderr
