"""firewall: the effect of each option on packets."""

from collections.abc import Callable
from typing import Any

import pytest

from pycni.protocol.errors import CniError
from pycni.testing import Container, Host, PluginRunner
from pycni.testing.snapshot import of_host

from .conftest import OUTSIDE, OutsideHost, Pod

MakePod = Callable[..., Pod]

NFT_POLICY = "nft 'add table inet pycni; add chain inet pycni forward {{ {forward}; policy drop; }}'"
NFT_RULE = "nft 'add rule inet pycni {chain} ip {direction}addr {v4} {verdict}"
DROP_BY_DEFAULT = {
    "nftables": NFT_POLICY.format(forward="type filter hook forward priority filter"),
    "iptables": "iptables -P FORWARD DROP && ip6tables -P FORWARD DROP",
    "firewalld": "true",  # it rejects packets without a zone
}
ADMIN_RULE = {
    "nftables": NFT_RULE + "; add rule inet pycni {chain} ip6 {direction}addr {v6} {verdict}'",
    "iptables": (
        "iptables -A {chain} -{direction} {v4} -j {VERDICT} && ip6tables -A {chain} -{direction} {v6} -j {VERDICT}"
    ),
}


@pytest.fixture(params=["nftables", "iptables", pytest.param("firewalld", marks=pytest.mark.exhaustive)])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "firewalld":
        request.getfixturevalue("firewalld")
    return str(request.param)


def admin_rule(host: Host, backend: str, chain: str, direction: str, verdict: str) -> None:
    """Add the administrator's verdict on packets from ("s") or to ("d") the outside host."""
    host.run(
        ADMIN_RULE[backend].format(
            chain=chain, direction=direction, v4=OUTSIDE[4], v6=OUTSIDE[6], verdict=verdict, VERDICT=verdict.upper()
        )
    )


def test_connections_from_a_pod_and_their_replies_are_accepted(
    host: Host, pod: MakePod, outside_host: OutsideHost, backend: str
) -> None:
    """The host drops forwarded packets by default."""
    host.run(DROP_BY_DEFAULT[backend])
    accepted, other = pod(1, 2, backend=backend), pod(1, 3, with_firewall=False)
    assert accepted.reaches(OUTSIDE)
    assert not other.reaches(OUTSIDE)
    assert not outside_host.reaches(accepted.addresses)
    accepted.firewall.check()
    accepted.firewall.delete()
    assert not accepted.reaches(OUTSIDE)


@pytest.mark.parametrize("policy", ["DROP", "ACCEPT"])
@pytest.mark.usefixtures("iptables")
def test_iptables_backend_is_chosen_if_its_forward_policy_is_drop(
    host: Host, pod: MakePod, outside_host: OutsideHost, policy: str
) -> None:
    """A host with Docker has this policy. Only a rule of iptables accepts packets despite it."""
    host.run(f"iptables -P FORWARD {policy}; ip6tables -P FORWARD {policy}")
    one, other = pod(1, 2), pod(1, 3, backend="nftables")
    assert one.reaches(OUTSIDE)
    assert other.reaches(OUTSIDE) == (policy == "ACCEPT")
    assert ("CNI-FORWARD" in host.run("iptables -S FORWARD")) == (policy == "DROP")
    host.run("iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
    one.firewall.check()
    one.delete()
    assert "10.1.0.2" not in host.run("iptables -S; nft list ruleset")


@pytest.mark.parametrize("name", [pytest.param("", marks=pytest.mark.exhaustive), "MY-ADMIN"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_admin_chain_takes_precedence_and_is_never_flushed(
    host: Host, pod: MakePod, outside_host: OutsideHost, backend: str, name: str
) -> None:
    chain = name or "CNI-ADMIN"
    one = pod(1, 2, backend=backend, iptablesAdminChainName=name)
    assert one.reaches(OUTSIDE)
    admin_rule(host, backend, chain, "d", "drop")
    assert not one.reaches(OUTSIDE)
    two = pod(1, 3, backend=backend, iptablesAdminChainName=name)
    assert not two.reaches(OUTSIDE), "the next ADD does not flush the chain"
    two.delete()
    one.delete()
    pod(1, 4, backend=backend, iptablesAdminChainName=name)
    assert OUTSIDE[4] in host.run("nft list ruleset"), "the last DEL does not flush the chain"


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_admin_chain_can_accept_packets_that_are_dropped_by_default(
    host: Host, pod: MakePod, outside_host: OutsideHost, backend: str
) -> None:
    host.run(DROP_BY_DEFAULT[backend])
    one = pod(1, 2, backend=backend)
    assert not outside_host.reaches(one.addresses)
    admin_rule(host, backend, "CNI-ADMIN", "s", "accept")
    assert outside_host.reaches(one.addresses)


def test_admin_chain_can_exist_before_the_first_add(host: Host, pod: MakePod, outside_host: OutsideHost) -> None:
    host.run("nft 'table inet pycni { chain CNI-ADMIN { ip daddr 192.0.2.2 drop; ip6 daddr 2001:db8::2 drop; }; }'")
    assert not pod(1, 2, backend="nftables").reaches(OUTSIDE)


POLICIES = {"open": (True, True), "same-bridge": (False, True), "isolated": (False, False)}


@pytest.mark.parametrize(
    "bridged_packets", [pytest.param("seen by iptables", marks=pytest.mark.exhaustive), "not seen"]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_ingress_policy_restricts_connections_between_pods(
    host: Host, pod: MakePod, outside_host: OutsideHost, backend: str, policy: str, bridged_packets: str
) -> None:
    seen = int(bridged_packets == "seen by iptables")
    host.run(f"sysctl -qw net.bridge.bridge-nf-call-iptables={seen} net.bridge.bridge-nf-call-ip6tables={seen}")
    across, within = POLICIES[policy]
    config = {"backend": backend, "ingressPolicy": policy}
    one, neighbour, other = pod(1, 2, **config), pod(1, 3, **config), pod(2, 2, **config)
    assert one.reaches(other.addresses) == across
    assert one.reaches(neighbour.addresses) == within
    assert one.reaches(one.gateways)
    assert one.reaches(OUTSIDE)
    if backend != "firewalld":  # which rejects new connections from outside
        assert outside_host.reaches(one.addresses)
    for each in (one, neighbour, other):
        each.firewall.check()
    other.delete()
    assert one.reaches(neighbour.addresses) == within


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_isolated_pods_cannot_reach_each_other_through_the_bridge(host: Host, pod: MakePod, backend: str) -> None:
    """Each pod sends packets for the other pod to the MAC address of the bridge."""
    config = {"backend": backend, "ingressPolicy": "isolated"}
    one, two = pod(1, 2, **config), pod(1, 3, **config)
    mac = host.json("ip -j link show br1")[0]["address"]
    for one_pod, other_pod in ((one, two), (two, one)):
        for version, address in other_pod.addresses.items():
            one_pod.container.run(f"ip -{version} neigh replace {address} lladdr {mac} dev eth0")
    assert not one.reaches(two.addresses)
    pod(1, 4, backend=backend).reaches(one.gateways)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_pod_without_ingress_policy_is_reachable(pod: MakePod, backend: str) -> None:
    one, two = pod(1, 2, backend=backend, ingressPolicy="same-bridge"), pod(2, 2, backend=backend)
    assert one.reaches(two.addresses)
    assert two.reaches(one.addresses)


def test_ingress_policy_applies_to_addresses_unknown_to_ipam(pod: MakePod) -> None:
    """Two cooperating pods cannot bypass the policy with addresses that they add themselves."""
    one, two = pod(1, 2, ingressPolicy="same-bridge"), pod(2, 2, ingressPolicy="same-bridge")
    one.container.run("ip addr add 10.1.0.77/24 dev eth0 && ip addr add fd00:1::77/64 dev eth0 nodad")
    two.container.run("ip addr add 10.2.0.77/24 dev eth0 && ip addr add fd00:2::77/64 dev eth0 nodad")
    assert not _reaches_from(one, {4: "10.1.0.77", 6: "fd00:1::77"}, {4: "10.2.0.77", 6: "fd00:2::77"})


def _reaches_from(pod: Pod, source: dict[int, str], destination: dict[int, str]) -> bool:
    return any(
        "1 received" in pod.container.run(f"ping -c1 -W0.5 -I {source[version]} {destination[version]}", check=False)
        for version in (4, 6)
    )


@pytest.mark.usefixtures("firewalld")
def test_addresses_are_added_to_the_configured_firewalld_zone(host: Host, pod: MakePod) -> None:
    dropped, trusted = pod(1, 2, firewalldZone="drop"), pod(1, 3)
    assert host.run("firewall-cmd --zone=drop --list-sources").split() == ["10.1.0.2/32", "fd00:1::2/128"]
    assert host.run("firewall-cmd --zone=trusted --list-sources").split() == ["10.1.0.3/32", "fd00:1::3/128"]
    assert not dropped.reaches(dropped.gateways)
    assert trusted.reaches(trusted.gateways)
    dropped.firewall.check()


def test_result_is_prev_result(pod: MakePod) -> None:
    one = pod(1, 2)
    assert one.firewall.result == one.firewall.previous


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backend": "ebpf"}, 'backend: unknown firewall backend "ebpf": use nftables, iptables or firewalld'),
        ({"backend": "NFTABLES"}, 'unknown firewall backend "NFTABLES"'),
        ({"ingressPolicy": "closed"}, 'ingressPolicy: unknown ingress policy: "closed"'),
        ({"iptablesAdminChainName": "two words"}, '"two words" cannot be the name of the administrator\'s chain'),
        ({"iptablesAdminChainName": "forward"}, '"forward" cannot be the name'),
        ({"iptablesAdminChainName": "A" * 29}, "at most 27 letters"),
        ({"backend": 7}, "backend: .*valid string, not 7"),
    ],
)
def test_error_for_an_invalid_configuration_names_the_option_and_nothing_changes(
    pod: MakePod, config: dict[str, Any], message: str
) -> None:
    unrestricted = pod(1, 2, with_firewall=False)
    before = of_host(unrestricted.host)
    runner = PluginRunner("firewall", unrestricted.container, previous=unrestricted.network.result, **config)
    with pytest.raises(CniError, match=message) as caught:
        runner.add()
    assert caught.value.code == 7
    assert of_host(unrestricted.host) == before


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_add_and_check_require_prev_result(container: Container, command: str) -> None:
    with pytest.raises(CniError, match="^missing prevResult from earlier plugin") as caught:
        PluginRunner("firewall", container)._call(command)
    assert caught.value.code == 999


@pytest.mark.parametrize("version", ["0.3.1", "0.3.0", "0.2.0", "0.1.0"])
def test_versions_before_0_4_0_are_refused(container: Container, version: str) -> None:
    with pytest.raises(CniError, match="incompatible CNI versions") as caught:
        PluginRunner("firewall", container, cniVersion=version).add()
    assert caught.value.code == 1
    assert 'plugin supports ["0.4.0" "1.0.0" "1.1.0"]' in caught.value.details


MACVLAN = {
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c"}],
    "ips": [{"address": "10.1.0.2/24", "interface": 0}],
}
UNSUPPORTED_RESULTS = [
    ({"ips": [{"address": "10.1.0.2/24"}]}, 'interface needs to be set for ingress policy "isolated"'),
    (MACVLAN, 'first interface of prevResult is "eth0", which is not on the host'),
    ({"interfaces": [{"name": "br9"}]}, '"br9": there is no such link'),
    ({"interfaces": [{"name": "br1"}]}, "its port is not known"),
]


@pytest.mark.parametrize(("previous", "message"), UNSUPPORTED_RESULTS)
def test_isolated_policy_is_refused_if_prev_result_does_not_name_a_bridge_port(
    host: Host, pod: MakePod, previous: Any, message: str
) -> None:
    container = pod(1, 9, with_firewall=False).container
    runner = PluginRunner("firewall", container, previous={"cniVersion": "1.1.0", **previous}, ingressPolicy="isolated")
    with pytest.raises(CniError, match=message):
        runner.add()
    assert "10.1.0.2" not in host.run("nft list ruleset")
    runner.config["ingressPolicy"] = "open"
    runner.add()
    runner.delete()
