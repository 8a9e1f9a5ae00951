"""Pod: a sandbox and its container, in the words of kubelet."""

from typing import Any

from cri import Cri

IMAGE = "localhost/pycni-busybox:1"
POD_NAMESPACE, NODE_NAMESPACE = 0, 2


def configuration(name: str, logs: str, *, network: int = POD_NAMESPACE, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "namespace": "default"},
        "hostname": name if network == POD_NAMESPACE else "",
        "log_directory": logs,
        "linux": {"cgroup_parent": "/pycni-pods", "security_context": {"namespace_options": _namespaces(network)}},
        **more,
    }


def _namespaces(network: int) -> dict[str, int]:
    return {"network": network, "pid": 1}  # a pid namespace for each container


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

    def start(self, *command: str) -> None:
        container = {
            "metadata": {"name": "main"},
            "image": {"image": IMAGE, "user_specified_image": IMAGE},
            "command": command,
            "log_path": "main.log",
            "linux": {"security_context": {"namespace_options": _namespaces(POD_NAMESPACE)}},
        }
        created = self.cri("CreateContainer", pod_sandbox_id=self.id, config=container, sandbox_config=self.config)
        self.container = created["container_id"]
        self.cri("StartContainer", container_id=self.container)

    def run(self, *command: str) -> tuple[bool, str]:
        """Whether the command succeeded in the container, and what it printed."""
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
