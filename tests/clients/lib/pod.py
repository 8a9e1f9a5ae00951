"""A pod: a sandbox and its container, created as kubelet does."""

from typing import Any

from cri import Cri

IMAGE = "localhost/pycni-busybox:1"
POD_NAMESPACE, CONTAINER_NAMESPACE, NODE_NAMESPACE = 0, 1, 2


def configuration(
    name: str, logs: str, *, network: int = POD_NAMESPACE, of_the_node: bool = False, **more: Any
) -> dict[str, Any]:
    """Return a pod configuration; with `of_the_node`, privileged and in the node's network and process namespaces."""
    namespaces = {"network": network, "pid": CONTAINER_NAMESPACE}
    if of_the_node:
        namespaces = {"network": NODE_NAMESPACE, "pid": NODE_NAMESPACE}
    security = {"namespace_options": namespaces, "privileged": int(of_the_node)}
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "namespace": "default"},
        "hostname": name if namespaces["network"] == POD_NAMESPACE else "",
        "log_directory": logs,
        "linux": {"cgroup_parent": "/pycni-pods", "security_context": security},
        **more,
    }


class Pod:
    def __init__(self, cri: Cri, config: dict[str, Any]) -> None:
        self.cri, self.config = cri, config
        self.id = cri("RunPodSandbox", config=config)["pod_sandbox_id"]
        self.container = ""

    def addresses(self) -> list[str]:
        network = self.status()["network"]
        return [network["ip"], *(more["ip"] for more in network["additional_ips"])]

    def status(self) -> dict[str, Any]:
        return self.cri("PodSandboxStatus", pod_sandbox_id=self.id)["status"]

    def start(self, *command: str, image: str = IMAGE, **more: Any) -> None:
        container = {
            "metadata": {"name": "main"},
            "image": {"image": image, "user_specified_image": image},
            "command": command,
            "log_path": "main.log",
            "linux": {"security_context": self.config["linux"]["security_context"]},
            **more,
        }
        created = self.cri("CreateContainer", pod_sandbox_id=self.id, config=container, sandbox_config=self.config)
        self.container = created["container_id"]
        self.cri("StartContainer", container_id=self.container)

    def run(self, *command: str) -> tuple[bool, str]:
        """Run a command in the container. Return whether it succeeded, and its output."""
        answer = self.cri("ExecSync", container_id=self.container, cmd=command, timeout=10)
        return answer["exit_code"] == 0, (answer["stdout"] + answer["stderr"]).decode()

    def stop(self) -> None:
        if self.container:
            self.cri("StopContainer", container_id=self.container, timeout=1)
        self.stop_sandbox()

    def stop_sandbox(self) -> None:
        self.cri("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self) -> None:
        self.cri("RemovePodSandbox", pod_sandbox_id=self.id)
