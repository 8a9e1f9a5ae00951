#!/bin/bash
# systemd.sh: run the units of `pycni install --server` under a systemd of its own, in the standard directories.
. "$(dirname "$0")/lib/stage.sh"
enter_stage "$@"
PYTHON=${PYTHON:-python3}
pycni() { PYTHONSAFEPATH=1 "$PYTHON" -m pycni "$@"; }

# Like systemd-nspawn: only network settings of the kernel are writable. Units that are not needed are masked; the others
# only change files in this script's mount namespace.
mount --bind /proc/sys /proc/sys && mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
rm -rf /etc/systemd/system /etc/rc?.d
mkdir -p /etc/systemd/system
cd /lib/systemd/system || exit 2
for unit in sysinit.target.wants/* local-fs.target.wants/* timers.target.wants/*; do
  case $unit in */*.target | */systemd-journald.service) ;; *) ln -sf /dev/null "/etc/systemd/system/${unit##*/}" ;; esac
done
cd /

service() { systemctl show pycni.service -P "$1"; }
status() { sed -n "s/^$1:\s*//p" "/proc/$(service MainPID)/status"; }
starts() { journalctl -u pycni.service -o cat | grep -c "^serving at"; }
started_again() { [ "$(starts)" -gt "$1" ]; }
is_another() { local pid; pid=$(service MainPID) && [ "$pid" != 0 ] && [ "$pid" != "$1" ] && systemctl is-active pycni.service; }

# cycle NAME ADDRESS [OPTION...]: attach a container to the network, ping the address with these options, check, detach.
cycle() {
  local name=$1 address=$2; shift 2
  export CAP_ARGS='{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
  check "$name: ADD" pycni add "$name" /run/netns/c1
  check "$name: ping" ip netns exec c1 ping -c1 -W2 "$@" "$address"
  check "$name: CHECK" pycni check "$name" /run/netns/c1
  check "$name: DEL" pycni del "$name" /run/netns/c1
}
cycles() {
  say "$1"
  cycle nftables 10.99.0.2
  cycle iptables 10.99.0.2
}
network() { echo "{\"cniVersion\": \"1.1.0\", \"name\": \"$1\", \"plugins\": [$2]}" >"/etc/cni/net.d/$1.conflist"; }
all_of_the_chain() {
  cat <<T
  {"type": "bridge", "bridge": "$1", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "$1",
   "ipam": {"type": "host-local", "subnet": "10.$2.0.0/24"}},
  {"type": "portmap", "backend": "$1", "capabilities": {"portMappings": true}},
  {"type": "firewall", "backend": "$1"},
  {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
  {"type": "bandwidth", "ingressRate": 10000000, "ingressBurst": 8000000}
T
}
# A bridge to a network with a DHCP server, and a device for host-device.
create_devices() {
  ip link add lan0 type bridge
  ip link add srv0 type veth peer name eth0 netns outside
  ip link set srv0 master lan0 up
  ip link set lan0 up
  ip link add hd0 type veth peer name hd1 netns outside
  ip -n outside addr add 10.55.0.1/24 dev eth0
  ip -n outside addr add 10.56.0.1/24 dev hd1
  ip -n outside link set eth0 up
  ip -n outside link set hd1 up
  ip netns exec outside dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --user=root \
    --no-ping --dhcp-authoritative --dhcp-range=10.55.0.100,10.55.0.150,255.255.255.0,2m \
    --dhcp-leasefile="$STAGE/dnsmasq.leases" --pid-file >"$STAGE/dnsmasq.log" 2>&1 &
}
static() { echo "\"ipam\": {\"type\": \"static\", \"addresses\": [{\"address\": \"$1\"}]}"; }

checks() {
  eventually "systemd listens at the socket" systemctl is-active pycni.socket
  expect "the service is not running" '^inactive$' systemctl is-active pycni.service
  cycles "first call"
  check "the call started the service" systemctl is-active pycni.service
  expect "the system call filter is active" '^2$' status Seccomp
  expect "NoNewPrivileges is set" '^1$' status NoNewPrivs
  local needed="dac_override net_bind_service net_admin net_raw sys_ptrace sys_admin"
  expect "it only has the capabilities it needs" "^cap_${needed// / cap_}\$" service CapabilityBoundingSet

  cycle routed 10.99.0.2 -I 10.88.1.2
  cycle shared 10.99.0.2
  cycle moved 10.56.0.1
  cycle tapped 10.57.0.2
  cycle leased 10.55.0.1
  check "the lease was released" test ! -s "$STAGE/dnsmasq.leases"

  local before; before=$(service MainPID)
  kill -KILL "$before"
  eventually "restarted after SIGKILL" is_another "$before"
  cycles "after the restart"
  before=$(service MainPID)
  local version times
  for version in 1 2; do
    times=$(starts)
    touch "$SITE/$version"
    eventually "restarted after an upgrade" started_again "$times"
  done
  cycles "after the upgrade"
  expect "in the same process" "^$before\$" service MainPID
  before=$(service MainPID)
  check "restart" systemctl restart pycni.service
  check "it is another process" is_another "$before"
  check "stop" systemctl stop pycni.service
  expect "stopped without a failure" '^success$' service Result
  cycles "call after the stop"
  check "the call started the service again" systemctl is-active pycni.service

  systemctl --quiet stop pycni.socket pycni.service
  check "uninstall" pycni uninstall
  check "daemon-reload" systemctl daemon-reload
  expect "the service unit is removed" '^not-found$' service LoadState
  nothing "the socket unit is removed" 'pycni' systemctl list-sockets --all
  nothing "the server answered all calls" . cat "$STAGE/oneshot.log"
  nothing "nothing is left installed" . find /opt/cni/bin /etc/systemd/system -name '*pycni*' -type f
  check "the state directory is removed" test ! -e /var/lib/pycni
  nothing_is_left
  [ $FAILED = 0 ] || journalctl --no-pager -n 40 -o cat
  systemctl --force exit $FAILED # --force: shutdown jobs would wait for masked units
}

check "install" pycni install --server
SITE=$STAGE/site # a directory on the server's module path, changed to simulate an upgrade
mkdir -p "$SITE" /etc/systemd/system/pycni.service.d
printf '[Service]\nEnvironment="PYTHONPATH=%s"\n' "$SITE" >/etc/systemd/system/pycni.service.d/site.conf
: >"$STAGE/oneshot.log" # log of one-shot executables, which launchers run when there is no server
sed -i "3a echo \"\$0 \$CNI_COMMAND\" >>$STAGE/oneshot.log" /var/lib/pycni/oneshot/*/*/*
ip netns add c1
ip -n c1 link set lo up
create_devices
network nftables "$(all_of_the_chain nftables 88)"
network iptables "$(all_of_the_chain iptables 89)"
network routed '{"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.88.1.0/24",
  "routes": [{"dst": "0.0.0.0/0"}]}}, {"type": "sbr"}'
network shared "{\"type\": \"macvlan\", \"master\": \"up0\", $(static 10.99.0.77/24)}"
network moved "{\"type\": \"host-device\", \"device\": \"hd0\", $(static 10.56.0.2/24)}"
network tapped "{\"type\": \"tap\", $(static 10.57.0.2/24)}"
network leased '{"type": "bridge", "bridge": "lan0", "ipam": {"type": "dhcp"}}'
checks &
container=pycni exec /lib/systemd/systemd --system --unit=sockets.target --log-level=warning --show-status=no
