"""Chained plugins without a task: the call that runs for every pod that does not use them."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pycni.sdk import registry
from pycni.sdk.invoke import invoke
from pycni.sdk.dispatch import handle_call

name, stdin = sys.argv[1:]
env = dict(CNI_COMMAND="ADD", CNI_CONTAINERID="c1", CNI_NETNS="/run/netns/none", CNI_IFNAME="eth0", CNI_PATH="/none")
reply = handle_call(name, registry.load(name), env, stdin.encode(), invoke)
print(reply.stdout, reply.status, "pyroute2" in sys.modules)
"""


@pytest.mark.parametrize("plugin", ["bandwidth", "portmap", "tuning"])
def test_add_returns_prev_result_without_importing_pyroute2(plugin: str) -> None:
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}
    document = {"cniVersion": "1.1.0", "name": "n", "type": plugin, "prevResult": previous}
    command = [sys.executable, "-c", SCRIPT, plugin, json.dumps(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reply, status, loaded = done.stdout.rsplit(maxsplit=2)
    assert json.loads(reply) == previous
    assert (status, loaded) == ("0", "False")
