"""deploy/: the manifest is consistent with the API server and node.py, and node.py manages the files of a node."""

import importlib.util
import io
import json
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import yaml

from pycni.protocol.errors import CniError
from pycni.runtime import NetworkConfig, Runtime
from pycni.testing import Host

DEPLOY = Path(__file__).parents[2] / "deploy"
VERSION_IDS = ["0123456789ab", "123456789abc", "23456789abcd"]


@pytest.fixture
def manifest() -> dict[str, Any]:
    """Return the objects of the manifest by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all((DEPLOY / "daemonset.yaml").read_text())}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module node.py, with the files of node and container in a directory of the test."""
    spec = importlib.util.spec_from_file_location("node", DEPLOY / "node.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("CONFIGURATIONS", "EARLIER_HOME", "NET_D", "STATE", "OWN_FILES", "SERVICE_ACCOUNT"):
        monkeypatch.setattr(module, name, tmp_path / str(getattr(module, name)).lstrip("/"))
    for directory in (module.CONFIGURATIONS, module.STATE, module.SERVICE_ACCOUNT):
        directory.mkdir(parents=True)
    return module


def test_manifest_is_consistent(manifest: dict[str, Any]) -> None:
    daemonset, names = manifest["DaemonSet"], {manifest[kind]["metadata"]["name"] for kind in manifest}
    template = daemonset["spec"]["template"]
    assert template["metadata"]["labels"].items() >= daemonset["spec"]["selector"]["matchLabels"].items()
    assert template["spec"]["serviceAccountName"] in names
    mounts = [mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == [volume["name"] for volume in template["spec"]["volumes"]]
    assert [volume["configMap"]["name"] for volume in template["spec"]["volumes"]] == ["pycni"]
    binding = manifest["ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == manifest["ClusterRole"]["metadata"]["name"]
    assert [(item["kind"], item["name"]) for item in binding["subjects"]] == [("ServiceAccount", "pycni")]
    assert {kind: item["apiVersion"] for kind, item in manifest.items()} == {
        "ServiceAccount": "v1",
        "ClusterRole": "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
        "ConfigMap": "v1",
        "DaemonSet": "apps/v1",
    }


def test_pod_runs_in_the_namespaces_of_the_servers_callers(manifest: dict[str, Any], node: ModuleType) -> None:
    spec = manifest["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (spec["hostPID"], spec["hostNetwork"], container["securityContext"]) == (True, True, {"privileged": True})
    assert spec.get("hostUsers", True)
    assert spec["terminationGracePeriodSeconds"] > 60  # seconds that the server waits for calls to end
    assert container["volumeMounts"][0]["mountPath"].lstrip("/") in str(node.CONFIGURATIONS)
    assert {item["name"] for item in container["env"]} == {"NODE_NAME", "REMOVE_ON_STOP"}


def test_readiness_probe_opens_the_file_of_node_py(manifest: dict[str, Any], node: ModuleType) -> None:
    (container,) = manifest["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["exec"]["command"][-1] == f"open('{node.READY}')"


def test_network_is_valid(
    manifest: dict[str, Any], node: ModuleType, monkeypatch: pytest.MonkeyPatch, bin_directory: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("POD_CIDRS", "10.1.0.0/24,fd00:1::/64")
    for name, text in manifest["ConfigMap"]["data"].items():
        (node.CONFIGURATIONS / name).write_text(text)
    found = node.read_configurations()
    assert list(found) == ["10-pycni.conflist"]
    network = NetworkConfig.parse(found["10-pycni.conflist"].encode())
    assert Runtime([str(bin_directory)], cache_dir=tmp_path).validate_network_list(network)
    ipam = json.loads(found["10-pycni.conflist"])["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]


class Api(BaseHTTPRequestHandler):
    """The part of the API server that node.py uses."""

    nodes: ClassVar[dict[str, Any]] = {
        "/api/v1/nodes/n1": {"spec": {"podCIDRs": ["10.1.2.0/24", "fd00:2::/64"]}},
        "/api/v1/nodes/bare": {"spec": {}},
    }

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer secret" and self.path in self.nodes
        self.send_response(200 if known else 403)
        self.end_headers()
        if known:
            self.wfile.write(json.dumps(self.nodes[self.path]).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def api(node: ModuleType, host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cluster's API server, on the throwaway host."""
    account = node.SERVICE_ACCOUNT
    (account / "token").write_text("secret")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1",
               "-keyout", account / "key", "-out", account / "ca.crt"]  # fmt: skip
    subprocess.run(request, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "key")
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("api")
def test_pod_cidrs_of_the_node_come_from_the_api_server(node: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    assert node.pod_cidrs() == ["10.1.2.0/24", "fd00:2::/64"]
    monkeypatch.setenv("NODE_NAME", "bare")
    with pytest.raises(SystemExit, match="the node has no podCIDRs"):
        node.pod_cidrs()


def test_invalid_configuration_is_not_installed(node: ModuleType) -> None:
    (node.CONFIGURATIONS / "10-broken.conflist").write_text("{")
    with pytest.raises(SystemExit, match=r"10-broken\.conflist of the ConfigMap: Expecting property name"):
        node.read_configurations()


def test_own_old_configurations_are_removed_and_other_files_are_kept(node: ModuleType) -> None:
    node.place_configurations({"10-old.conflist": "{}"})
    (node.NET_D / "99-others.conf").write_text("other")
    node.place_configurations({"10-new.conflist": "{}"})
    assert sorted(path.name for path in node.NET_D.iterdir()) == ["10-new.conflist", "99-others.conf"]
    with pytest.raises(CniError, match="99-others.conf is not pycni's"):
        node.place_configurations({"99-others.conf": "own"})
    assert (node.NET_D / "99-others.conf").read_text() == "other"
    node.remove_configurations()
    assert [path.name for path in node.NET_D.iterdir()] == ["99-others.conf"]


def archive_with(text: str) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("./node.py")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


def test_version_is_unpacked_completely_or_not_at_all(node: ModuleType, tmp_path: Path) -> None:
    directory = tmp_path / "opt" / "pycni-node" / VERSION_IDS[0]
    truncated = io.BytesIO(archive_with("x" * 2000).getvalue()[:1000])
    with pytest.raises(tarfile.ReadError):
        node.unpack(truncated, directory)
    assert not directory.exists()
    node.unpack(archive_with("complete"), directory)
    node.unpack(archive_with("complete"), directory)
    assert [path.name for path in directory.parent.iterdir()] == [VERSION_IDS[0]]
    assert (directory / "node.py").read_text() == "complete"


def test_previous_version_is_kept_for_running_calls(node: ModuleType, tmp_path: Path) -> None:
    directories = [tmp_path / "opt" / "pycni-node" / name for name in VERSION_IDS]
    for directory in directories:
        node.unpack(archive_with("x"), directory)
    node.remove_older(directories[-1])
    assert sorted(path.name for path in directories[0].parent.iterdir()) == VERSION_IDS[1:]


def test_only_directories_of_versions_are_removed(
    node: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "opt" / "pycni-node" / VERSION_IDS[0]
    node.unpack(archive_with("x"), home)
    earlier = node.EARLIER_HOME / VERSION_IDS[1]
    node.unpack(archive_with("x"), earlier)
    others = [node.EARLIER_HOME / "lib" / "site.py", node.EARLIER_HOME / ".config" / "file", home.parent / "notes"]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of the administrator")
    monkeypatch.setattr(node, "HOME", home)
    node.unpack(archive_with("x"), home.with_name(VERSION_IDS[2]))
    node.remove_older(home)
    node.remove_home()
    assert all(file.exists() for file in others)
    assert not home.exists()
    assert not earlier.exists()
