#!/bin/bash
# systemd.sh: a machine whose own systemd has the units of `pycni install --server`, in the places where they belong.
. "$(dirname "$0")/lib/stage.sh"
enter_stage "$@"
PYTHON=${PYTHON:-python3}
pycni() { PYTHONSAFEPATH=1 "$PYTHON" -m pycni "$@"; }

# As systemd-nspawn does it: of the kernel's settings those of the network alone can be written. And of the units those
# are left that a service needs, which touch no file but on the stage.
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

# life NAME ADDRESS [OPTION...]: a container on the network, which reaches the address (by ping with these options).
life() {
  local name=$1 address=$2; shift 2
  export CAP_ARGS='{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
  check "$name: ADD" pycni add "$name" /run/netns/c1
  check "$name: ping" ip netns exec c1 ping -c1 -W2 "$@" "$address"
  check "$name: CHECK" pycni check "$name" /run/netns/c1
  check "$name: DEL" pycni del "$name" /run/netns/c1
}
lives() {
  say "$1"
  life nftables 10.99.0.2
  life iptables 10.99.0.2
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
# A bridge to a network that has a DHCP server, and a device to be lent.
surroundings() {
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
  expect "nothing has started the service" '^inactive$' systemctl is-active pycni.service
  lives "by the first call"
  check "which started the service" systemctl is-active pycni.service
  expect "the filter of its calls is on" '^2$' status Seccomp
  expect "it gains no privileges" '^1$' status NoNewPrivs
  local needed="dac_override net_bind_service net_admin net_raw sys_ptrace sys_admin"
  expect "it has no capability but those it needs" "^cap_${needed// / cap_}\$" service CapabilityBoundingSet

  life routed 10.99.0.2 -I 10.88.1.2
  life shared 10.99.0.2
  life lent 10.56.0.1
  life tapped 10.57.0.2
  life leased 10.55.0.1
  check "the lease was given back" test ! -s "$STAGE/dnsmasq.leases"

  local before; before=$(service MainPID)
  kill -KILL "$before"
  eventually "killed, it is started again" is_another "$before"
  lives "by the next one"
  before=$(service MainPID)
  local version times
  for version in 1 2; do
    times=$(starts)
    touch "$SITE/$version"
    eventually "upgraded, it starts anew" started_again "$times"
  done
  lives "by the new version"
  expect "in the same process" "^$before\$" service MainPID
  before=$(service MainPID)
  check "restart" systemctl restart pycni.service
  check "is another process" is_another "$before"
  check "stop" systemctl stop pycni.service
  expect "without a failure" '^success$' service Result
  lives "by a call after the stop"
  check "which started it again" systemctl is-active pycni.service

  systemctl --quiet stop pycni.socket pycni.service
  check "uninstall" pycni uninstall
  check "systemd reads its units anew" systemctl daemon-reload
  expect "it knows of no service" '^not-found$' service LoadState
  nothing "nor of a socket" 'pycni' systemctl list-sockets --all
  nothing "every call was answered by the server" . cat "$STAGE/oneshot.log"
  nothing "nothing is installed" . find /opt/cni/bin /etc/systemd/system /var/lib/pycni -name '*pycni*' -type f
  nothing_is_left
  [ $FAILED = 0 ] || journalctl --no-pager -n 40 -o cat
  systemctl --force exit $FAILED # at once: jobs wait for targets whose units are masked
}

check "install" pycni install --server
SITE=$STAGE/site # a directory of the server's path that the test can change
mkdir -p "$SITE" /etc/systemd/system/pycni.service.d
printf '[Service]\nEnvironment="PYTHONPATH=%s"\n' "$SITE" >/etc/systemd/system/pycni.service.d/site.conf
: >"$STAGE/oneshot.log" # what a launcher starts when it has no server writes its name down
sed -i "3a echo \"\$0 \$CNI_COMMAND\" >>$STAGE/oneshot.log" /var/lib/pycni/oneshot/*
ip netns add c1
ip -n c1 link set lo up
surroundings
network nftables "$(all_of_the_chain nftables 88)"
network iptables "$(all_of_the_chain iptables 89)"
network routed '{"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.88.1.0/24",
  "routes": [{"dst": "0.0.0.0/0"}]}}, {"type": "sbr"}'
network shared "{\"type\": \"macvlan\", \"master\": \"up0\", $(static 10.99.0.77/24)}"
network lent "{\"type\": \"host-device\", \"device\": \"hd0\", $(static 10.56.0.2/24)}"
network tapped "{\"type\": \"tap\", $(static 10.57.0.2/24)}"
network leased '{"type": "bridge", "bridge": "lan0", "ipam": {"type": "dhcp"}}'
checks &
container=pycni exec /lib/systemd/systemd --system --unit=sockets.target --log-level=warning --show-status=no
