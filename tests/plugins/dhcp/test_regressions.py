"""dhcp: where the Go plugin and its daemon go wrong, and what happens to leases in the long run."""

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
from pycni_plugins.dhcp import daemon

from pycni.cli import installation
from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner, wait_for

from .conftest import BRIDGE, SUBNET, BridgeOf, Keeper, Lan, Process, address_of

if TYPE_CHECKING:
    from tests.plugins.conftest import GoPlugins

PATIENCE = 40  # seconds, for slow machines
SHORT = 8  # seconds that a lease lasts: renewed after 4, rebound after 7


def lease_of(keeper: Keeper) -> dict[str, Any]:
    (record,) = keeper.records()
    return dict(record["lease"], withdrawn=record["withdrawn"])


def ip_of(result: dict[str, Any]) -> str:
    return str(result["ips"][0]["address"])


# The first ADD


def test_the_first_packet_on_a_new_bridge_port_is_not_lost_for_ten_seconds(
    lan: Lan, no_keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    """Go: DISCOVER left before the port forwarded, and the next one came ten seconds later (R-26)."""
    no_keeper.start("-timeout=5s", "-resendtimeout=5s")
    lan.isc()
    for container in containers:
        bridge(to=container).add()


# Addresses that are in use


@pytest.fixture
def stranger(lan: Lan, containers: list[Container]) -> Container:
    """Somebody on the network who has an address of the server's pool, without having asked."""
    ipam = {"type": "static", "addresses": [{"address": f"{SUBNET}.100/24"}]}
    PluginRunner("bridge", containers[1], bridge=BRIDGE, ipam=ipam).add()
    return containers[1]


def test_an_address_that_somebody_has_already_is_declined(
    lan: Lan, no_keeper: Keeper, bridge: BridgeOf, container: Container, stranger: Container
) -> None:
    """Go: both had it (RFC 2131 section 3.1, step 5)."""
    no_keeper.start("-resendmax=100ms")
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.101")
    runtime = bridge(declineConflicts=True, provide=[{"option": "dhcp-requested-address", "value": f"{SUBNET}.100"}])
    with lan.overheard() as frames:
        assert ip_of(runtime.add()) == f"{SUBNET}.101/24"
        (decline,) = [frame for frame in frames() if frame.kind == 4]
    assert set(decline.options) == {50, 53, 54, 61}
    assert f"DHCPDECLINE of {SUBNET}.100" in lan.said()
    assert f"{SUBNET}.10" not in container.run("ip -4 neigh show nud all")
    assert container.pings(f"{SUBNET}.100")


def test_where_there_is_no_other_address_the_holder_is_named(
    lan: Lan, no_keeper: Keeper, bridge: BridgeOf, stranger: Container
) -> None:
    no_keeper.start("-timeout=2s", "-resendtimeout=200ms")
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.100")
    (link,) = stranger.json("ip -j link show eth0")
    with pytest.raises(CniError, match=f"no more tries: .*{link['address']} has {SUBNET}.100 already"):
        bridge(declineConflicts=True).add()
    assert no_keeper.records() == []


def test_nothing_is_declined_unless_that_is_asked_for(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, stranger: Container
) -> None:
    """There are routers that answer for every address."""
    lan.isc(pool=f"{SUBNET}.100 {SUBNET}.101")
    asking = bridge(provide=[{"option": "dhcp-requested-address", "value": f"{SUBNET}.100"}])
    assert ip_of(asking.add()) == f"{SUBNET}.100/24"
    assert "DHCPDECLINE" not in lan.said()


# CHECK and restarts


def test_check_asks_no_server(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    """Go: CHECK was an ADD, and acquired a lease when the daemon had forgotten its own (R-24)."""
    lan.isc()
    runtime = bridge()
    runtime.add()
    before = lan.said().count("DHCP")
    runtime.check()
    runtime.delete()
    with pytest.raises(CniError, match="no DHCP lease for eth0"):
        PluginRunner("dhcp", runtime.container, ipam=runtime.config["ipam"]).check()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")
    assert lan.said().count("DHCP") == before + 1
    assert keeper.records() == []


@pytest.mark.parametrize("end", [pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGKILL])
def test_leases_survive_a_restart_of_the_keeper(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container, end: signal.Signals
) -> None:
    """Go: a new daemon knew no lease, renewed none and released none (R-24, #235, #767)."""
    lan.isc(seconds=SHORT)
    runtime = bridge()
    address = ip_of(runtime.add())
    keeper.stop(end)
    keeper.start()
    runtime.check()
    obtained = lease_of(keeper)["obtained"]
    wait_for(lambda: lease_of(keeper)["obtained"] > obtained, "the renewal", seconds=PATIENCE)
    assert address_of(container) == [address]
    runtime.check()
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")


def test_a_lease_that_ends_while_no_keeper_runs_is_asked_for_again(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc(seconds=2)
    runtime = bridge()
    address = ip_of(runtime.add())
    keeper.stop()
    end = lan.said()
    wait_for(lambda: _boot_time() > _expiry(keeper), "the end of the lease", seconds=PATIENCE)
    lan.isc(seconds=600)
    keeper.start()
    wait_for(lambda: not lease_of(keeper)["withdrawn"] and "DHCPACK" in lan.said(), "a lease", seconds=PATIENCE)
    wait_for(lambda: address_of(container) == [address], "the address")
    assert "DHCPDISCOVER" in lan.said(), end


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _expiry(keeper: Keeper) -> float:
    return float(lease_of(keeper)["obtained"]) + 2


def test_del_succeeds_without_a_keeper_and_still_releases(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    """Go: DEL failed when the daemon was not there (R-24)."""
    lan.isc()
    runtime = bridge()
    runtime.add()
    keeper.stop(signal.SIGKILL)
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")
    assert keeper.records() == []
    runtime.delete()


def test_gc_works_without_a_keeper(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc()
    runtime = bridge()
    runtime.add()
    keeper.stop(signal.SIGKILL)
    runtime.gc()
    assert keeper.records() == []
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")


def test_gc_goes_on_with_the_next_lease_when_one_cannot_be_forgotten(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    lan.isc()
    runtimes = [bridge(to=container) for container in containers]
    for runtime in runtimes:
        runtime.add()
    stuck = keeper.leases / f"{runtimes[0].owner.key}.json"
    stuck.unlink()
    stuck.mkdir()
    with pytest.raises(CniError, match="cannot remove the DHCP lease .*is a directory"):
        runtimes[0].gc()
    assert list(keeper.leases.glob("*.json")) == [stuck]
    wait_for(lambda: lan.said().count("DHCPRELEASE") == 3, "the releases")
    stuck.rmdir()


def test_del_is_told_of_a_keeper_that_does_not_listen(lan: Lan, keeper: Keeper, bridge: BridgeOf) -> None:
    lan.isc()
    runtime = bridge()
    runtime.add()
    hidden = keeper.socket.rename(keeper.socket.with_name("hidden"))
    with pytest.raises(CniError, match="does not listen") as failed:
        runtime.delete()
    assert failed.value.code == 11
    hidden.rename(keeper.socket)
    runtime.delete()
    assert keeper.records() == []


# The daemon


def test_servers_broadcast_their_answers_where_the_flag_says_so(
    lan: Lan, no_keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    """Go: -broadcast changed nothing (R-25)."""
    lan.dnsmasq()
    no_keeper.start()
    bridge(to=containers[0]).add()
    assert "broadcast response" not in lan.said()
    no_keeper.restart("-broadcast=true")
    bridge(to=containers[1]).add()
    assert "broadcast response" in lan.said()


def test_a_socket_that_a_dead_daemon_left_is_no_obstacle(no_keeper: Keeper, bridge: BridgeOf) -> None:
    """Go: bind: address already in use (R-25)."""
    no_keeper.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(no_keeper.socket))
    no_keeper.start()
    wait_for(lambda: _is_ready(bridge()), "the keeper")


def _is_ready(runtime: PluginRunner) -> bool:
    try:
        runtime.status()
    except CniError:
        return False
    return True


def test_two_keepers_do_not_keep_the_same_leases(keeper: Keeper, tmp_path: Path) -> None:
    second = [sys.executable, "-m", "pycni", "dhcp-daemon", "-socketpath", keeper.socket]
    done = subprocess.run(second, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "another keeper of DHCP leases listens" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("script", [False, True])
def test_the_executable_is_the_daemon_as_in_the_units_of_go(
    no_keeper: Keeper, bridge: BridgeOf, tmp_path: Path, *, script: bool
) -> None:
    """cni-dhcp.service starts /opt/cni/bin/dhcp daemon."""
    if not script and not installation.has_compiled_launcher():
        pytest.skip("needs the compiled launcher")
    directory, pidfile = tmp_path / "bin", tmp_path / "pid"
    installation.install(directory, ["dhcp"], tmp_path / "install", python=script)
    prefix = tmp_path / "run"
    flags = ["-hostprefix", prefix, "--socketpath=/cni/dhcp.sock", "-pidfile", pidfile, "-timeout", "1m0.5s"]
    process = Process(None, tmp_path / "log", directory / "dhcp", "daemon", *flags)
    try:
        wait_for(lambda: _is_ready(bridge()), f"the daemon: {process.said()}", seconds=PATIENCE)
        assert int(pidfile.read_text()) == process.pid
        assert pidfile.stat().st_mode & 0o777 == 0o644
    finally:
        assert process.stop() == 0
    assert not pidfile.exists()
    assert not no_keeper.socket.exists()


def test_a_keeper_in_a_container_finds_namespaces_below_the_hosts_root(
    lan: Lan, no_keeper: Keeper, bridge: BridgeOf, container: Container, tmp_path: Path
) -> None:
    lan.isc()
    root = tmp_path / "run"
    no_keeper.start("-hostprefix", str(root), "-socketpath", "/cni/dhcp.sock")
    runtime = bridge()
    with pytest.raises(CniError, match=f'failed to open netns "{root}{container.path}"'):
        runtime.add()
    (root / "proc").symlink_to("/proc")
    runtime.add()
    runtime.check()


@pytest.mark.exhaustive
@pytest.mark.parametrize("script", [False, True])
def test_other_words_behind_its_name_are_no_command(tmp_path: Path, *, script: bool) -> None:
    installation.install(tmp_path / "bin", ["dhcp", "static"], tmp_path / "install", python=script)
    for words in ([tmp_path / "bin" / "dhcp", "fly"], [tmp_path / "bin" / "static", "daemon"]):
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"CNI {words[0].name} plugin v1.9.")


@pytest.mark.parametrize(
    "flags", [["-timeout", "10"], ["-pidfile", "relative"], ["-nonsense"], ["-broadcast=maybe"], ["-resendmax=1x"]]
)
def test_a_flag_that_is_none_is_refused_by_name(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        daemon.main(flags)
    assert ended.value.code == 2
    assert flags[0].partition("=")[0] in capsys.readouterr().err


def test_a_socket_of_systemd_is_taken_over(no_keeper: Keeper, bridge: BridgeOf, tmp_path: Path) -> None:
    no_keeper.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(no_keeper.socket))
        listener.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'};"
            "os.execv(sys.executable, [sys.executable, '-m', 'pycni', 'dhcp-daemon', '-socketpath', sys.argv[2]])"
        )
        command = [sys.executable, "-c", script, str(listener.fileno()), str(no_keeper.socket)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=log)
    try:
        wait_for(lambda: _is_ready(bridge()), "the daemon", seconds=PATIENCE)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert no_keeper.socket.exists(), "the socket is systemd's"


# The life of a lease


def test_a_lease_is_renewed_and_released_by_unicast(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: both were broadcast, which some servers and most switches with DHCP snooping drop (DH-25, OKEP-6224)."""
    lan.isc(seconds=SHORT)
    runtime = bridge()
    address = ip_of(runtime.add())
    obtained = lease_of(keeper)["obtained"]
    with lan.overheard() as frames:
        wait_for(lambda: lease_of(keeper)["obtained"] > obtained, "the renewal", seconds=PATIENCE)
        assert address_of(container) == [address]
        runtime.check()
        runtime.delete()
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
def test_when_its_server_answers_no_more_any_server_may_renew(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    timers = ("--dhcp-option=58,2", "--dhcp-option=59,4")
    lan.dnsmasq(*timers)
    runtime = bridge(request=[{"option": "58"}, {"option": "59"}])
    address = ip_of(runtime.add())
    lan.stop_server()
    lan.router.run(f"ip addr del {SUBNET}.1/24 dev eth0 && ip addr add {SUBNET}.2/24 dev eth0")
    lan.dnsmasq(*timers)
    wait_for(lambda: lease_of(keeper)["server"] == f"{SUBNET}.2", "the rebinding", seconds=PATIENCE)
    assert address_of(container) == [address]
    assert "no server answers about" in keeper.said()
    assert not lease_of(keeper)["withdrawn"]


def test_an_address_that_the_server_takes_back_is_changed_on_the_interface(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: the lease changed, and the interface kept the old address (R-27)."""
    lan.isc(seconds=SHORT)
    runtime = bridge()
    old = ip_of(runtime.add())
    container.run(f"ip route add 10.66.0.0/16 via {SUBNET}.9 dev eth0")
    container.run(f"ip route add 10.67.0.0/16 via {SUBNET}.9 dev eth0 table 77 metric 5 mtu 1300")
    (lan.directory / "dhcpd.leases").write_text("")
    lan.isc(seconds=SHORT, pool=f"{SUBNET}.200 {SUBNET}.210")
    wait_for(lambda: address_of(container) not in ([old], []), "another address", seconds=PATIENCE)
    new = address_of(container)[0].partition("/")[0]
    wait_for(lambda: lease_of(keeper)["address"] == new, "the lease of it")
    assert container.pings(f"{SUBNET}.1")
    routes = container.run("ip route show dev eth0")
    assert f"default via {SUBNET}.1" in routes
    assert f"10.66.0.0/16 via {SUBNET}.9" in routes
    assert f"10.67.0.0/16 via {SUBNET}.9 dev eth0 metric 5 mtu 1300" in container.run("ip route show table 77")
    with pytest.raises(CniError):
        runtime.check()


@pytest.mark.exhaustive
def test_another_router_at_a_renewal_is_the_default_gateway(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc(seconds=SHORT)
    address = ip_of(bridge().add())
    lan.isc(f"option routers {SUBNET}.3;", seconds=SHORT)
    wait_for(lambda: f"default via {SUBNET}.3" in container.run("ip route"), "the router", seconds=PATIENCE)
    assert f"default via {SUBNET}.1" not in container.run("ip route")
    assert address_of(container) == [address]


def test_an_address_that_nobody_renews_is_withdrawn_and_comes_back(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: the interface was set down, for good (R-27)."""
    lan.isc(seconds=4)
    runtime = bridge()
    address = ip_of(runtime.add())
    lan.stop_server()
    wait_for(lambda: lease_of(keeper)["withdrawn"], "the end of the lease", seconds=PATIENCE)
    assert address_of(container) == []
    assert "state UP" in container.run("ip link show eth0")
    with pytest.raises(CniError, match="has ended"):
        PluginRunner("dhcp", container, ipam=runtime.config["ipam"]).check()
    lan.isc(seconds=600)
    wait_for(lambda: address_of(container) == [address], "the address", seconds=PATIENCE)
    wait_for(lambda: not lease_of(keeper)["withdrawn"], "the lease")
    assert f"default via {SUBNET}.1" in container.run("ip route")
    runtime.check()


# The end of the link


def test_a_link_that_goes_ends_its_lease_and_the_next_add_does_not_hang(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: the lease stayed in the table without anybody to keep it, and ADD waited for that for ever (R-28)."""
    lan.isc()
    runtime = bridge()
    runtime.add()
    container.run("ip link del eth0")
    wait_for(lambda: keeper.records() == [], "the end of the lease")
    with pytest.raises(CniError, match="no DHCP lease for eth0"):
        runtime.check()
    runtime.add()
    runtime.check()
    container.run("ip link del eth0")
    runtime.add()
    runtime.check()
    runtime.delete()


def test_an_interface_of_the_same_name_is_not_the_one_that_was_bound(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    lan.isc()
    bridge().add()
    container.run("ip link del eth0 && ip link add eth0 type veth peer name eth1 && ip link set eth0 up")
    wait_for(lambda: keeper.records() == [], "the end of the lease")


def test_a_path_that_leads_to_another_namespace_by_now_is_not_the_leases(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, containers: list[Container]
) -> None:
    lan.isc()
    first, other, _ = containers
    bridge(to=first).add()
    other.run("ip link add eth0 type veth peer name eth1 && ip addr add 10.9.0.1/24 dev eth0 && ip link set eth0 up")
    os.dup2(other.netns.fd, first.netns.fd)
    wait_for(lambda: keeper.records() == [], "the end of the lease")
    assert address_of(other) == ["10.9.0.1/24"]
    assert "is another namespace by now" in keeper.said()


def test_a_keeper_holds_no_namespace_alive(lan: Lan, keeper: Keeper, bridge: BridgeOf, host: Host) -> None:
    """Go: an open namespace and a thread for each lease (DH-35): what died without DEL never went away."""
    lan.isc()
    container = Container(host)
    bridge(to=container).add()
    veth = bridge(to=container).owner.host_ifname
    container.close()
    wait_for(lambda: veth not in host.run("ip link"), "the end of the namespace")
    wait_for(lambda: keeper.records() == [], "the end of the lease")


def test_del_of_a_bridge_releases_before_the_link_goes(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    """Go: the link went first, so no server ever heard of the end (R-29); it was an Ethernet broadcast besides."""
    lan.isc()
    runtime = bridge()
    runtime.add()
    (server,) = lan.router.json("ip -j link show eth0")
    record = lease_of(keeper)
    assert record["serverMac"] == server["address"]
    runtime.delete()
    wait_for(lambda: "DHCPRELEASE" in lan.said(), "the release")
    leases = (lan.directory / "dhcpd.leases").read_text()
    assert "binding state free" in leases.rpartition("lease ")[2]


# Calls that end early


def test_del_ends_an_add_that_waits_for_a_server(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container, host: Host
) -> None:
    runtime = bridge()
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(lambda: (host.netns.enter_permanently(), runtime.add()))
        wait_for(lambda: "acquiring a lease" in keeper.said(), "the ADD")
        PluginRunner("dhcp", container, ipam=runtime.config["ipam"]).delete()
        with pytest.raises(CniError, match="was ended by its DEL") as ended:
            adding.result(20)
    assert ended.value.code == 11
    assert keeper.records() == []


def test_nothing_is_acquired_for_a_caller_that_was_killed(
    lan: Lan, keeper: Keeper, bridge: BridgeOf, container: Container
) -> None:
    runtime = bridge()
    pid = os.fork()
    if pid == 0:
        try:
            runtime.add()
        finally:
            os._exit(1)
    wait_for(lambda: "acquiring a lease" in keeper.said(), "the ADD")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: "nobody waits for a lease any more" in keeper.said(), "the keeper")
    assert keeper.records() == []
    lan.isc()
    runtime.delete()
    runtime.add()


# Bad input, and strangers


def test_a_missing_ipam_section_is_an_error_with_a_name(container: Container, keeper: Keeper) -> None:
    """Go: panic, exit status 2 (R-30)."""
    with pytest.raises(CniError, match="missing 'ipam' key") as refused:
        PluginRunner("dhcp", container).add()
    assert refused.value.code == 7


def test_a_record_that_cannot_be_read_harms_nobody(lan: Lan, no_keeper: Keeper, bridge: BridgeOf) -> None:
    no_keeper.leases.mkdir(parents=True)
    (no_keeper.leases / "broken.json").write_text("{")
    no_keeper.start()
    lan.isc()
    runtime = bridge()
    runtime.add()
    runtime.delete()
    assert "broken.json cannot be understood" in no_keeper.said()


@pytest.mark.parametrize(
    "nonsense", [b"hello\n", b"pycni-dhcp/1 {\n", b'pycni-dhcp/1 {"do": "fly"}\n', b"\0" * 100 + b"\n"]
)
def test_nonsense_at_the_socket_harms_nobody(keeper: Keeper, bridge: BridgeOf, nonsense: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(keeper.socket))
        stranger.sendall(nonsense)
        answer = stranger.makefile("rb").read()
    assert answer == b"" or b"cannot fly" in answer
    bridge().status()


def test_the_go_plugin_is_told_whom_it_speaks_to(keeper: Keeper, go_plugins: "GoPlugins", container: Container) -> None:
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": container.path,
        "CNI_PATH": "/nowhere",
    }
    config = (
        f'{{"cniVersion":"1.0.0","name":"n","type":"x","ipam":{{"type":"dhcp","daemonSocketPath":"{keeper.socket}"}}}}'
    )
    dhcp = go_plugins.directory / "dhcp"
    done = subprocess.run([dhcp], env=env, input=config, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "this is the DHCP keeper of pycni" in done.stdout


def test_a_go_daemon_at_the_socket_is_named(
    no_keeper: Keeper, go_plugins: "GoPlugins", bridge: BridgeOf, tmp_path: Path
) -> None:
    process = Process(
        None, tmp_path / "go.log", go_plugins.directory / "dhcp", "daemon", "-socketpath", no_keeper.socket
    )
    try:
        wait_for(no_keeper.socket.exists, "the Go daemon")
        with pytest.raises(CniError, match="is no DHCP keeper of pycni") as refused:
            bridge().status()
        assert "stop a Go `dhcp daemon`" in refused.value.details
    finally:
        process.stop()
