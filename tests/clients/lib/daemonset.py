"""Start the DaemonSet's pod as kubelet does, with additional environment variables; print the ids of pod and container.

Usage: daemonset.py SOCKET LOGS YAML NAME=VALUE...
       daemonset.py SOCKET LOGS YAML stop POD CONTAINER      (stop and remove them)
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from cri import Cri
from node_image import NAME
from pod import Pod, configuration


def main(socket: str, logs: str, manifest: str, *arguments: str) -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(Path(manifest).read_text())}
    cri = Cri(socket)
    if arguments[0] == "stop":
        for call, request in (
            ("StopContainer", {"container_id": arguments[2], "timeout": 90}),
            ("StopPodSandbox", {"pod_sandbox_id": arguments[1]}),
            ("RemovePodSandbox", {"pod_sandbox_id": arguments[1]}),
        ):
            cri(call, **request)
        return
    spec = objects["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["hostNetwork"]
    assert spec["hostPID"]
    assert container["securityContext"] == {"privileged": True}
    pod = Pod(cri, configuration("daemonset", logs, of_the_node=True))
    env = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    env |= dict(argument.split("=", 1) for argument in arguments)
    pod.start(
        *container.get("command", ()),
        image=NAME,
        envs=[{"key": key, "value": value} for key, value in env.items()],
        mounts=[mounted(each, spec["volumes"], objects["ConfigMap"], logs) for each in container["volumeMounts"]],
    )
    print(pod.id, pod.container)


def mounted(mount: dict[str, Any], volumes: list[dict[str, Any]], config_map: dict[str, Any], logs: str) -> Any:
    (source,) = (volume["configMap"]["name"] for volume in volumes if volume["name"] == mount["name"])
    assert source == config_map["metadata"]["name"]
    directory = Path(logs, source)
    directory.mkdir(exist_ok=True)
    for name, text in config_map["data"].items():
        (directory / name).write_text(text)
    return {"container_path": mount["mountPath"], "host_path": str(directory), "readonly": int(mount["readOnly"])}


if __name__ == "__main__":
    main(*sys.argv[1:])
