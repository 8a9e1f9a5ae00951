"""dhcp: faults of the Go plugin and its daemon, and leases over time (docs/reference/plugins.md#dhcp)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pycni_plugins.dhcp import daemon_main

from pycni.cli import installation
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for

from .conftest import BRIDGE, SUBNET, CreateBridgeRunner, Lan, LeaseDaemon, Process, addresses_of

if TYPE_CHECKING:
    from tests.plugins.conftest import GoPlugins

TIMEOUT = 40  # seconds, for slow machines
LEASE_SECONDS = 8  # renewed after 4, rebound after 7


def lease_of(lease_daemon: LeaseDaemon) -> dict[str, Any]:
    (record,) = lease_daemon.records()
    return dict(record["lease"], withdrawn=record["withdrawn"])


def ip_of(result: dict[str, Any]) -> str:
    return str(result["ips"][0]["address"])


# The first ADD


def test_add_on_a_new_bridge_port_gets_a_lease_within_five_seconds(
    lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    """Go: DISCOVER is sent before the port forwards, and sent again ten seconds later."""
    stopped_daemon.start("-timeout=5s", "-resendtimeout=5s")
    lan.isc()
    for container in containers:
        bridge(to=container).add()


# Addresses that are in use


@pytest.fixture
def conflicting_container(lan: Lan, containers: list[Container]) -> Container:
    """A container that uses an address of the server's pool without a lease."""
    ipam = {"type": "static", "addresses": [{"address": f"{SUBNET}.100/24"}]}
    PluginRunner("bridge", containers[1], bridge=BRIDGE, ipam=ipam).add()
    return containers[1]


def test_address_in_use_is_declined_and_another_one_acquired(
    lan: Lan,
    stopped_daemon: LeaseDaemon,
    bridge: CreateBridgeRunner,
    container: Container,
    conflicting_container: Container,
) -> None:
    """RFC 2131 section 3.1, step 5. Go: both containers use the address."""
    stopped_daemon.start("-resendmax=100ms")
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.101")
    runner = bridge(declineConflicts=True, provide=[{"option": "dhcp-requested-address", "value": f"{SUBNET}.100"}])
    with lan.overheard() as frames:
        assert ip_of(runner.add()) == f"{SUBNET}.101/24"
        (decline,) = [frame for frame in frames() if frame.kind == 4]
    assert set(decline.options) == {50, 53, 54, 61}
    assert f"DHCPDECLINE of {SUBNET}.100" in lan.log_text()
    assert f"{SUBNET}.10" not in container.run("ip -4 neigh show nud all")
    assert container.pings(f"{SUBNET}.100")


def test_error_names_the_mac_address_that_uses_the_only_address(
    lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, conflicting_container: Container
) -> None:
    stopped_daemon.start("-timeout=2s", "-resendtimeout=200ms")
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.100")
    (link,) = conflicting_container.json("ip -j link show eth0")
    with pytest.raises(
        CniError, match=f"no more tries: .*{SUBNET}.100 is in use by the host with MAC address {link['address']}"
    ):
        bridge(declineConflicts=True).add()
    assert stopped_daemon.records() == []


def test_conflicting_address_is_accepted_without_decline_conflicts(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, conflicting_container: Container
) -> None:
    """Some routers answer ARP requests for every address."""
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.101")
    runner = bridge(provide=[{"option": "dhcp-requested-address", "value": f"{SUBNET}.100"}])
    assert ip_of(runner.add()) == f"{SUBNET}.100/24"
    assert "DHCPDECLINE" not in lan.log_text()


# CHECK and restarts


def test_check_sends_nothing_to_the_server(lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    """Go: CHECK is an ADD, and acquires a lease if the daemon has none."""
    lan.isc()
    runner = bridge()
    runner.add()
    before = lan.log_text().count("DHCP")
    runner.check()
    runner.delete()
    with pytest.raises(CniError, match="no DHCP lease for eth0"):
        PluginRunner("dhcp", runner.container, ipam=runner.config["ipam"]).check()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")
    assert lan.log_text().count("DHCP") == before + 1
    assert lease_daemon.records() == []


@pytest.mark.parametrize("end", [pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGKILL])
def test_leases_survive_a_restart_of_the_daemon(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container, end: signal.Signals
) -> None:
    """containernetworking/plugins#235 and #767: a restarted daemon knows no lease, renews none and releases none."""
    lan.isc(seconds=LEASE_SECONDS)
    runner = bridge()
    address = ip_of(runner.add())
    lease_daemon.stop(end)
    lease_daemon.start()
    runner.check()
    obtained = lease_of(lease_daemon)["obtained"]
    wait_for(lambda: lease_of(lease_daemon)["obtained"] > obtained, "the renewal", seconds=TIMEOUT)
    assert addresses_of(container) == [address]
    runner.check()
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")


def test_lease_that_expires_without_a_daemon_is_acquired_again(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc(seconds=2)
    runner = bridge()
    address = ip_of(runner.add())
    lease_daemon.stop()
    end = lan.log_text()
    wait_for(lambda: _boot_time() > _expiry(lease_daemon), "the end of the lease", seconds=TIMEOUT)
    lan.isc(seconds=600)
    lease_daemon.start()
    wait_for(
        lambda: not lease_of(lease_daemon)["withdrawn"] and "DHCPACK" in lan.log_text(), "a lease", seconds=TIMEOUT
    )
    wait_for(lambda: addresses_of(container) == [address], "the address")
    assert "DHCPDISCOVER" in lan.log_text(), end


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _expiry(lease_daemon: LeaseDaemon) -> float:
    return float(lease_of(lease_daemon)["obtained"]) + 2


def test_del_without_a_daemon_releases_the_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    """Go: DEL fails without the daemon."""
    lan.isc()
    runner = bridge()
    runner.add()
    lease_daemon.stop(signal.SIGKILL)
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")
    assert lease_daemon.records() == []
    runner.delete()


def test_gc_without_a_daemon_releases_the_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.isc()
    runner = bridge()
    runner.add()
    lease_daemon.stop(signal.SIGKILL)
    runner.gc()
    assert lease_daemon.records() == []
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")


def test_gc_continues_after_a_lease_that_cannot_be_removed(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    lan.isc()
    runners = [bridge(to=container) for container in containers]
    for runner in runners:
        runner.add()
    stuck = lease_daemon.leases / f"{runners[0].owner.key}.json"
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(CniError, match="cannot remove the DHCP lease .*is a directory"):
        runners[0].gc()
    assert list(lease_daemon.leases.glob("*.json")) == [stuck]
    wait_for(lambda: lan.log_text().count("DHCPRELEASE") == 3, "the releases")
    stuck.rmdir()


def test_del_fails_with_code_11_if_the_daemon_runs_but_does_not_listen(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner
) -> None:
    lan.isc()
    runner = bridge()
    runner.add()
    hidden = lease_daemon.socket.rename(lease_daemon.socket.with_name("hidden"))
    with pytest.raises(CniError, match="does not listen") as failed:
        runner.delete()
    assert failed.value.code == 11
    hidden.rename(lease_daemon.socket)
    runner.delete()
    assert lease_daemon.records() == []


# The daemon


def test_broadcast_flag_makes_servers_broadcast_their_answers(
    lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    """Go: -broadcast has no effect."""
    lan.dnsmasq()
    stopped_daemon.start()
    bridge(to=containers[0]).add()
    assert "broadcast response" not in lan.log_text()
    stopped_daemon.restart("-broadcast=true")
    bridge(to=containers[1]).add()
    assert "broadcast response" in lan.log_text()


def test_daemon_starts_if_a_stale_socket_exists(stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    """Go: "bind: address already in use"."""
    stopped_daemon.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stopped_daemon.socket))
    stopped_daemon.start()
    wait_for(lambda: _is_ready(bridge()), "the lease daemon")


def _is_ready(runner: PluginRunner) -> bool:
    try:
        runner.status()
    except CniError:
        return False
    return True


def test_second_daemon_on_the_same_socket_exits_with_an_error(lease_daemon: LeaseDaemon, tmp_path: Path) -> None:
    second = [sys.executable, "-m", "pycni", "dhcp-daemon", "-socketpath", lease_daemon.socket]
    done = subprocess.run(second, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "another DHCP lease daemon listens" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("script", [False, True])
def test_dhcp_executable_runs_the_daemon(
    stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, tmp_path: Path, *, script: bool
) -> None:
    """Go's cni-dhcp.service runs `/opt/cni/bin/dhcp daemon`."""
    if not script and not installation.has_compiled_launcher():
        pytest.skip("needs the compiled launcher")
    directory, pidfile = tmp_path / "bin", tmp_path / "pid"
    installation.install(directory, ["dhcp"], tmp_path / "install", python=script)
    prefix = tmp_path / "run"
    flags = ["-hostprefix", prefix, "--socketpath=/cni/dhcp.sock", "-pidfile", pidfile, "-timeout", "1m0.5s"]
    process = Process(None, tmp_path / "log", directory / "dhcp", "daemon", *flags)
    try:
        wait_for(lambda: _is_ready(bridge()), f"the daemon: {process.log_text()}", seconds=TIMEOUT)
        assert int(pidfile.read_text()) == process.pid
        assert pidfile.stat().st_mode & 0o777 == 0o644
    finally:
        assert process.stop() == 0
    assert not pidfile.exists()
    assert not stopped_daemon.socket.exists()


def test_host_prefix_is_prepended_to_the_netns_path(
    lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container, tmp_path: Path
) -> None:
    lan.isc()
    root = tmp_path / "run"
    stopped_daemon.start("-hostprefix", str(root), "-socketpath", "/cni/dhcp.sock")
    runner = bridge()
    with pytest.raises(CniError, match=f'failed to open netns "{root}{container.path}"'):
        runner.add()
    (root / "proc").symlink_to("/proc")
    runner.add()
    runner.check()


@pytest.mark.exhaustive
@pytest.mark.parametrize("script", [False, True])
def test_executables_run_no_daemon_for_other_arguments(tmp_path: Path, *, script: bool) -> None:
    installation.install(tmp_path / "bin", ["dhcp", "static"], tmp_path / "install", python=script)
    for command in ([tmp_path / "bin" / "dhcp", "fly"], [tmp_path / "bin" / "static", "daemon"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"CNI {command[0].name} plugin v1.9.")


@pytest.mark.parametrize(
    "flags", [["-timeout", "10"], ["-pidfile", "relative"], ["-nonsense"], ["-broadcast=maybe"], ["-resendmax=1x"]]
)
def test_error_for_an_invalid_flag_names_it(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        daemon_main.main(flags)
    assert ended.value.code == 2
    assert flags[0].partition("=")[0] in capsys.readouterr().err


def test_daemon_listens_on_a_socket_passed_by_systemd(
    stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner, tmp_path: Path
) -> None:
    stopped_daemon.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stopped_daemon.socket))
        listener.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'};"
            "os.execv(sys.executable, [sys.executable, '-m', 'pycni', 'dhcp-daemon', '-socketpath', sys.argv[2]])"
        )
        command = [sys.executable, "-c", script, str(listener.fileno()), str(stopped_daemon.socket)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=log)
    try:
        wait_for(lambda: _is_ready(bridge()), "the daemon", seconds=TIMEOUT)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert stopped_daemon.socket.exists(), "the socket belongs to systemd"


# Renewal and expiry


def test_renewal_and_release_are_unicast(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: both are broadcast. Some servers and most switches with DHCP snooping drop them."""
    lan.isc(seconds=LEASE_SECONDS)
    runner = bridge()
    address = ip_of(runner.add())
    obtained = lease_of(lease_daemon)["obtained"]
    with lan.overheard() as frames:
        wait_for(lambda: lease_of(lease_daemon)["obtained"] > obtained, "the renewal", seconds=TIMEOUT)
        assert addresses_of(container) == [address]
        runner.check()
        runner.delete()
        wait_for(lambda: len(frames()) == 2, "a request and the release")
        request, release = frames()
    (server,) = lan.router.json("ip -j link show eth0")
    for frame in (request, release):
        assert frame.mac == server["address"]
        assert str(frame.destination) == f"{SUBNET}.1"
        assert str(frame.source) == address.partition("/")[0]
    assert (request.kind, release.kind) == (3, 7)
    assert {50, 54}.isdisjoint(request.options)  # RFC 2131 table 5
    assert request.options[57] == (1500).to_bytes(2, "big")
    assert set(release.options) == {53, 54, 61}
    assert release.options[61] == request.options[61]


@pytest.mark.exhaustive
def test_lease_is_rebound_by_another_server(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    timers = ("--dhcp-option=58,2", "--dhcp-option=59,4")
    lan.dnsmasq(*timers)
    runner = bridge(request=[{"option": "58"}, {"option": "59"}])
    address = ip_of(runner.add())
    lan.stop_server()
    lan.router.run(f"ip addr del {SUBNET}.1/24 dev eth0 && ip addr add {SUBNET}.2/24 dev eth0")
    lan.dnsmasq(*timers)
    wait_for(lambda: lease_of(lease_daemon)["server"] == f"{SUBNET}.2", "the rebinding", seconds=TIMEOUT)
    assert addresses_of(container) == [address]
    assert "no DHCP server answers the REQUEST for" in lease_daemon.log_text()
    assert not lease_of(lease_daemon)["withdrawn"]


def test_address_is_replaced_on_the_interface_if_the_server_assigns_another(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: the lease changes, and the interface keeps the old address."""
    lan.isc(seconds=LEASE_SECONDS)
    runner = bridge()
    old = ip_of(runner.add())
    container.run(f"ip route add 10.66.0.0/16 via {SUBNET}.9 dev eth0")
    container.run(f"ip route add 10.67.0.0/16 via {SUBNET}.9 dev eth0 table 77 metric 5 mtu 1300")
    (lan.directory / "dhcpd.leases").write_text("")
    lan.isc(seconds=LEASE_SECONDS, pool=f"{SUBNET}.200 {SUBNET}.210")
    wait_for(lambda: addresses_of(container) not in ([old], []), "another address", seconds=TIMEOUT)
    new = addresses_of(container)[0].partition("/")[0]
    wait_for(lambda: lease_of(lease_daemon)["address"] == new, "the lease of the new address")
    assert container.pings(f"{SUBNET}.1")
    routes = container.run("ip route show dev eth0")
    assert f"default via {SUBNET}.1" in routes
    assert f"10.66.0.0/16 via {SUBNET}.9" in routes
    assert f"10.67.0.0/16 via {SUBNET}.9 dev eth0 metric 5 mtu 1300" in container.run("ip route show table 77")
    with pytest.raises(CniError):
        runner.check()


@pytest.mark.exhaustive
def test_default_route_follows_the_router_of_a_renewed_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc(seconds=LEASE_SECONDS)
    address = ip_of(bridge().add())
    lan.isc(f"option routers {SUBNET}.3;", seconds=LEASE_SECONDS)
    wait_for(lambda: f"default via {SUBNET}.3" in container.run("ip route"), "the router", seconds=TIMEOUT)
    assert f"default via {SUBNET}.1" not in container.run("ip route")
    assert addresses_of(container) == [address]


def test_address_is_removed_when_its_lease_expires_and_restored_with_a_new_lease(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: the interface is set down permanently."""
    lan.isc(seconds=4)
    runner = bridge()
    address = ip_of(runner.add())
    lan.stop_server()
    wait_for(lambda: lease_of(lease_daemon)["withdrawn"], "the end of the lease", seconds=TIMEOUT)
    assert addresses_of(container) == []
    assert "state UP" in container.run("ip link show eth0")
    with pytest.raises(CniError, match="has ended"):
        PluginRunner("dhcp", container, ipam=runner.config["ipam"]).check()
    lan.isc(seconds=600)
    wait_for(lambda: addresses_of(container) == [address], "the address", seconds=TIMEOUT)
    wait_for(lambda: not lease_of(lease_daemon)["withdrawn"], "the lease")
    assert f"default via {SUBNET}.1" in container.run("ip route")
    runner.check()


# Deleted links and namespaces


def test_lease_ends_with_its_link_and_the_next_add_gets_a_new_one(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: the lease stays in the table without a maintainer, and the next ADD waits for it forever."""
    lan.isc()
    runner = bridge()
    runner.add()
    container.run("ip link del eth0")
    wait_for(lambda: lease_daemon.records() == [], "the end of the lease")
    with pytest.raises(CniError, match="no DHCP lease for eth0"):
        runner.check()
    runner.add()
    runner.check()
    container.run("ip link del eth0")
    runner.add()
    runner.check()
    runner.delete()


def test_lease_ends_if_another_interface_takes_the_name(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    lan.isc()
    bridge().add()
    container.run("ip link del eth0 && ip link add eth0 type veth peer name eth1 && ip link set eth0 up")
    wait_for(lambda: lease_daemon.records() == [], "the end of the lease")


def test_lease_ends_if_the_netns_path_refers_to_another_namespace(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, containers: list[Container]
) -> None:
    lan.isc()
    first, other, _ = containers
    bridge(to=first).add()
    other.run("ip link add eth0 type veth peer name eth1 && ip addr add 10.9.0.1/24 dev eth0 && ip link set eth0 up")
    os.dup2(other.netns.fd, first.netns.fd)
    wait_for(lambda: lease_daemon.records() == [], "the end of the lease")
    assert addresses_of(other) == ["10.9.0.1/24"]
    assert "is a different network namespace now" in lease_daemon.log_text()


def test_daemon_does_not_keep_namespaces_open(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, host: Host
) -> None:
    """Go: the daemon keeps a thread and an open namespace per lease. A namespace deleted without DEL is never freed."""
    lan.isc()
    container = Container(host)
    bridge(to=container).add()
    veth = bridge(to=container).owner.host_ifname
    container.close()
    wait_for(lambda: veth not in host.run("ip link"), "the end of the namespace")
    wait_for(lambda: lease_daemon.records() == [], "the end of the lease")


def test_bridge_del_releases_the_lease_before_it_deletes_the_link(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    """Go: the link is deleted first, so the server never receives the release."""
    lan.isc()
    runner = bridge()
    runner.add()
    (server,) = lan.router.json("ip -j link show eth0")
    record = lease_of(lease_daemon)
    assert record["serverMac"] == server["address"]
    runner.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.log_text(), "the release")
    leases = (lan.directory / "dhcpd.leases").read_text()
    assert "binding state free" in leases.rpartition("lease ")[2]


# Interrupted calls


def test_del_ends_a_concurrent_add_that_waits_for_a_server(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container, host: Host
) -> None:
    runner = bridge()
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(lambda: (host.netns.enter_permanently(), runner.add()))
        wait_for(lambda: "acquiring a lease" in lease_daemon.log_text(), "the ADD")
        PluginRunner("dhcp", container, ipam=runner.config["ipam"]).delete()
        with pytest.raises(CniError, match="was cancelled by its DEL") as ended:
            adding.result(20)
    assert ended.value.code == 11
    assert lease_daemon.records() == []


def test_no_lease_is_acquired_for_a_killed_caller(
    lan: Lan, lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, container: Container
) -> None:
    runner = bridge()
    pid = os.fork()
    if pid == 0:
        try:
            runner.add()
        finally:
            os._exit(1)
    wait_for(lambda: "acquiring a lease" in lease_daemon.log_text(), "the ADD")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: "the plugin no longer waits for the lease" in lease_daemon.log_text(), "the lease daemon")
    assert lease_daemon.records() == []
    lan.isc()
    runner.delete()
    runner.add()


# Invalid input and other programs


def test_missing_ipam_section_is_an_error(container: Container, lease_daemon: LeaseDaemon) -> None:
    """Go: panic, exit status 2."""
    with pytest.raises(CniError, match="missing 'ipam' key") as refused:
        PluginRunner("dhcp", container).add()
    assert refused.value.code == 7


def test_unreadable_lease_file_is_ignored(lan: Lan, stopped_daemon: LeaseDaemon, bridge: CreateBridgeRunner) -> None:
    stopped_daemon.leases.mkdir(parents=True)
    (stopped_daemon.leases / "broken.json").write_text("{")
    stopped_daemon.start()
    lan.isc()
    runner = bridge()
    runner.add()
    runner.delete()
    assert "broken.json, which cannot be read" in stopped_daemon.log_text()


@pytest.mark.parametrize(
    "request_bytes", [b"hello\n", b"pycni-dhcp/1 {\n", b'pycni-dhcp/1 {"do": "fly"}\n', b"\0" * 100 + b"\n"]
)
def test_invalid_requests_on_the_socket_are_ignored(
    lease_daemon: LeaseDaemon, bridge: CreateBridgeRunner, request_bytes: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as conflicting_container:
        conflicting_container.settimeout(10)
        conflicting_container.connect(str(lease_daemon.socket))
        conflicting_container.sendall(request_bytes)
        answer = conflicting_container.makefile("rb").read()
    assert answer == b"" or b"does not know the request fly" in answer
    bridge().status()


def test_go_plugin_gets_an_error_that_names_the_pycni_daemon(
    lease_daemon: LeaseDaemon, go_plugins: "GoPlugins", container: Container
) -> None:
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": container.path,
        "CNI_PATH": "/nowhere",
    }
    ipam = {"type": "dhcp", "daemonSocketPath": str(lease_daemon.socket)}
    config = json.dumps({"cniVersion": "1.0.0", "name": "n", "type": "x", "ipam": ipam})
    dhcp = go_plugins.directory / "dhcp"
    done = subprocess.run([dhcp], env=env, input=config, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "this is the DHCP lease daemon of pycni" in done.stdout


def test_error_names_a_go_daemon_on_the_socket(
    stopped_daemon: LeaseDaemon, go_plugins: "GoPlugins", bridge: CreateBridgeRunner, tmp_path: Path
) -> None:
    process = Process(
        None, tmp_path / "go.log", go_plugins.directory / "dhcp", "daemon", "-socketpath", stopped_daemon.socket
    )
    try:
        wait_for(stopped_daemon.socket.exists, "the Go daemon")
        with pytest.raises(CniError, match="is not pycni's DHCP lease daemon") as refused:
            bridge().status()
        assert "stop a Go `dhcp daemon`" in refused.value.details
    finally:
        process.stop()
