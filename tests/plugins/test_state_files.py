"""State files keep their format between releases: nodes are upgraded while containers run."""

import json
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path

from pycni_plugins.dhcp.lease_store import LeaseStore
from pycni_plugins.host_device import device_record

from pycni.sdk import Owner

# The format of the first alpha version.
DHCP_LEASE = """{
 "client": {
  "network": "lan",
  "containerId": "c1",
  "ifname": "eth0",
  "netns": "/run/netns/c1",
  "requested": [
   1,
   3
  ],
  "provided": {
   "12": "d2ViLTA="
  },
  "priority": 0,
  "declines": false
 },
 "incarnation": "5f1c7a2e-0d5b-4c8e-9a51-3f0d1b6a7c42/4097",
 "index": 2,
 "lease": {
  "address": "10.55.0.7",
  "server": "10.55.0.1",
  "serverMac": "02:00:00:00:00:01",
  "obtained": 1000.5,
  "options": {
   "51": "AAAOEA==",
   "1": "____AA==",
   "3": "CjcAAQ==",
   "54": "CjcAAQ=="
  }
 },
 "withdrawn": false
}"""
HOST_DEVICE = """{
 "owner": "a4861f4ae9f7d238-f4d01f2ef4b92245, net: net, if: eth0, id: c1",
 "container_id": "c1",
 "ifname": "eth0",
 "netns": "/run/netns/c1",
 "incarnation": "5f1c7a2e-0d5b-4c8e-9a51-3f0d1b6a7c42/4097",
 "selector": "device nic",
 "physical": false,
 "home": {
  "name": "nic",
  "mac": "02:00:00:00:00:09",
  "mtu": 1400,
  "promisc": false,
  "allmulti": false,
  "txqlen": 1000,
  "up": true,
  "alias": "uplink",
  "cidrs": [
   "192.0.2.7/28"
  ],
  "routes": [
   {
    "dst": "203.0.113.0/24",
    "gw": "192.0.2.1",
    "mtu": 1300,
    "advmss": 0,
    "priority": 0,
    "table": null,
    "scope": null,
    "source": "192.0.2.7",
    "protocol": 3,
    "gateway_is_on_link": false
   }
  ],
  "master": "br0",
  "port": [
   [
    "IFLA_BRPORT_COST",
    7
   ]
  ],
  "vlans": [
   [
    100,
    6
   ]
  ]
 }
}"""
COOKIE = "5f1c7a2e-0d5b-4c8e-9a51-3f0d1b6a7c42/4097"


def test_state_of_an_earlier_release_is_read_by_dhcp(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path)
    file = tmp_path / f"{Owner('lan', 'c1', 'eth0').key}.json"
    file.write_text(DHCP_LEASE)
    (record,) = store.records()
    assert (record.cookie, record.index, record.withdrawn) == (COOKIE, 2, False)
    assert str(record.client) == "c1/lan/eth0"
    assert record.client.provided_options == {12: b"web-0"}
    assert (record.lease.address, record.lease.server) == (IPv4Address("10.55.0.7"), IPv4Address("10.55.0.1"))
    assert record.lease.expires_at == 1000.5 + 3600
    store.write(record)
    assert file.read_text() == DHCP_LEASE


def test_state_of_an_earlier_release_is_read_by_host_device(tmp_path: Path) -> None:
    (tmp_path / "c1_eth0.json").write_text(HOST_DEVICE)
    ((file, record),) = device_record.all_in(str(tmp_path))
    assert Owner("net", "c1", "eth0").owns(record.owner)
    assert (record.container_id, record.ifname, record.netns) == ("c1", "eth0", "/run/netns/c1")
    assert (record.cookie, record.selector, record.physical, record.name) == (COOKIE, "device nic", False, "nic")
    link = record.saved_link
    assert (link.mtu, link.up, link.alias, link.master) == (1400, True, "uplink", "br0")
    assert list(link.cidrs) == [ip_interface("192.0.2.7/28")]
    assert [(str(route.dst), route.gw, route.source) for route in link.routes] == [
        ("203.0.113.0/24", ip_address("192.0.2.1"), ip_address("192.0.2.7"))
    ]
    assert (dict(link.port), dict(link.vlans)) == ({"IFLA_BRPORT_COST": 7}, {100: 6})
    file.write(record.to_json())
    assert json.loads((tmp_path / "c1_eth0.json").read_text()) == json.loads(HOST_DEVICE)
