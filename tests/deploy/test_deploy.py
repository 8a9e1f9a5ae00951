"""deploy/: the manifest is what the API server and node.py take, and node.py leaves a node's files whole."""

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


@pytest.fixture
def manifest() -> dict[str, Any]:
    """Its objects, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "daemonset.yaml").read_text())}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """node.py, with the node's and the container's files below a directory of the test."""
    spec = importlib.util.spec_from_file_location("node", DEPLOY / "node.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("CONFIGURATIONS", "NET_D", "STATE", "OWN_FILES", "SERVICE_ACCOUNT"):
        monkeypatch.setattr(module, name, tmp_path / str(getattr(module, name)).lstrip("/"))
    for directory in (module.CONFIGURATIONS, module.STATE, module.SERVICE_ACCOUNT):
        directory.mkdir(parents=True)
    return module


def test_the_manifest_hangs_together(manifest: dict[str, Any]) -> None:
    daemonset, names = manifest["DaemonSet"], {manifest[kind]["metadata"]["name"] for kind in manifest}
    template = daemonset["spec"]["template"]
    assert template["metadata"]["labels"].items() >= daemonset["spec"]["selector"]["matchLabels"].items()
    assert template["spec"]["serviceAccountName"] in names
    mounts = [mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == [volume["name"] for volume in template["spec"]["volumes"]]
    assert [volume["configMap"]["name"] for volume in template["spec"]["volumes"]] == ["pycni"]
    binding = manifest["ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == manifest["ClusterRole"]["metadata"]["name"]
    assert [(each["kind"], each["name"]) for each in binding["subjects"]] == [("ServiceAccount", "pycni")]
    assert {kind: each["apiVersion"] for kind, each in manifest.items()} == {
        "ServiceAccount": "v1",
        "ClusterRole": "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
        "ConfigMap": "v1",
        "DaemonSet": "apps/v1",
    }


def test_its_pod_is_where_the_servers_callers_are(manifest: dict[str, Any], node: ModuleType) -> None:
    spec = manifest["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (spec["hostPID"], spec["hostNetwork"], container["securityContext"]) == (True, True, {"privileged": True})
    assert spec.get("hostUsers", True)
    assert spec["terminationGracePeriodSeconds"] > 60  # for which the server lets calls end
    assert container["volumeMounts"][0]["mountPath"].lstrip("/") in str(node.CONFIGURATIONS)
    assert {each["name"] for each in container["env"]} == {"NODE_NAME", "REMOVE_ON_STOP"}


def test_the_probe_finds_what_the_container_says(manifest: dict[str, Any], node: ModuleType) -> None:
    (container,) = manifest["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["exec"]["command"][-1] == f"open('{node.READY}')"


def test_its_network_is_valid_on_every_node(
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
    """The API server, as far as node.py asks it."""

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
        """Quiet."""


@pytest.fixture
def api(node: ModuleType, host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cluster's API, on the throwaway host."""
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
def test_the_nodes_pod_cidrs_come_from_the_api(node: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "n1")
    assert node.pod_cidrs() == ["10.1.2.0/24", "fd00:2::/64"]
    monkeypatch.setenv("NODE_NAME", "bare")
    with pytest.raises(SystemExit, match="the node has no podCIDRs"):
        node.pod_cidrs()


def test_a_broken_configuration_never_reaches_a_node(node: ModuleType) -> None:
    (node.CONFIGURATIONS / "10-broken.conflist").write_text("{")
    with pytest.raises(SystemExit, match=r"10-broken\.conflist of the ConfigMap: Expecting property name"):
        node.read_configurations()


def test_configurations_of_former_times_go_and_those_of_others_stay(node: ModuleType) -> None:
    node.place_configurations({"10-old.conflist": "{}"})
    (node.NET_D / "99-others.conf").write_text("theirs")
    node.place_configurations({"10-new.conflist": "{}"})
    assert sorted(path.name for path in node.NET_D.iterdir()) == ["10-new.conflist", "99-others.conf"]
    with pytest.raises(CniError, match="99-others.conf is not pycni's"):
        node.place_configurations({"99-others.conf": "ours"})
    assert (node.NET_D / "99-others.conf").read_text() == "theirs"
    node.remove_configurations()
    assert [path.name for path in node.NET_D.iterdir()] == ["99-others.conf"]


def packed(text: str) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("./node.py")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


def test_a_version_is_there_whole_or_not_at_all(node: ModuleType, tmp_path: Path) -> None:
    home = tmp_path / "opt" / "pycni" / "abc"
    half = io.BytesIO(packed("x" * 2000).getvalue()[:1000])
    with pytest.raises(tarfile.ReadError):
        node.unpack(half, home)
    assert not home.exists()
    node.unpack(packed("whole"), home)
    node.unpack(packed("whole"), home)
    assert [path.name for path in home.parent.iterdir()] == ["abc"]
    assert (home / "node.py").read_text() == "whole"


def test_the_version_before_stays_for_calls_that_have_begun(node: ModuleType, tmp_path: Path) -> None:
    homes = [tmp_path / "opt" / "pycni" / name for name in ("one", "two", "three")]
    for home in homes:
        node.unpack(packed("x"), home)
    node.remove_older(homes[-1])
    assert sorted(path.name for path in homes[0].parent.iterdir()) == ["three", "two"]
