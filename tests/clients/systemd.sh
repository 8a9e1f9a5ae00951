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
lives() {
  local name
  for name in nftables iptables; do
    check "$1: a container by $name" pycni add "$name" "/run/netns/c1"
    check "$1: it reaches outside, masqueraded" ip netns exec c1 ping -c1 -W2 10.99.0.2
    check "$1: CHECK" pycni check "$name" "/run/netns/c1"
    check "$1: DEL" pycni del "$name" "/run/netns/c1"
  done
}
configuration() {
  cat <<T
{"cniVersion": "1.1.0", "name": "$1", "plugins": [
  {"type": "bridge", "bridge": "$1", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "$1",
   "ipam": {"type": "host-local", "subnet": "10.$2.0.0/24"}},
  {"type": "portmap", "backend": "$1", "capabilities": {"portMappings": true}},
  {"type": "firewall", "backend": "$1"},
  {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
  {"type": "bandwidth", "ingressRate": 10000000, "ingressBurst": 8000000}]}
T
}

checks() {
  eventually "systemd listens at the socket" systemctl is-active pycni.socket
  expect "nothing has started the service" '^inactive$' systemctl is-active pycni.service
  lives "by the first call"
  check "which started the service" systemctl is-active pycni.service
  expect "the filter of its calls is on" '^2$' status Seccomp
  expect "it gains no privileges" '^1$' status NoNewPrivs
  expect "it has no capability but those it needs" '^CapabilityBoundingSet=cap_dac_override cap_net_bind_service cap_net_admin cap_net_raw cap_sys_ptrace cap_sys_admin$' \
    systemctl show pycni.service -p CapabilityBoundingSet

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
  systemctl exit $FAILED
}

check "install" pycni install --server
SITE=$STAGE/site # a directory of the server's path that the test can change
mkdir -p "$SITE" /etc/systemd/system/pycni.service.d
printf '[Service]\nEnvironment="PYTHONPATH=%s"\n' "$SITE" >/etc/systemd/system/pycni.service.d/site.conf
: >"$STAGE/oneshot.log" # what a launcher starts when it has no server writes its name down
sed -i "3a echo \"\$0 \$CNI_COMMAND\" >>$STAGE/oneshot.log" /var/lib/pycni/oneshot/*
ip netns add c1
configuration nftables 88 >/etc/cni/net.d/nftables.conflist
configuration iptables 89 >/etc/cni/net.d/iptables.conflist
checks &
container=pycni exec /lib/systemd/systemd --system --unit=sockets.target --log-level=warning --show-status=no
