#!/bin/bash
# ctr.sh BIN_DIR: `ctr run --cni`, which runs the plugins in /opt/cni/bin for the network in /etc/cni/net.d.
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
start_containerd "$1" bridge portmap
IMAGE=localhost/pycni-busybox:1
inside() { $CTR tasks exec --exec-id "x$BASHPID" c1 "$@"; }
stopped() { $CTR tasks list | grep -q 'c1 .*STOPPED'; }

check "image import" $CTR images import "$STAGE/image.tar"
# In the foreground, ctr calls DEL after the namespace is gone. Debian's bridge then leaves its masquerade rules.
expect "run in the foreground: eth0 has v4" 'inet 10\.88\.0\.' $CTR run --rm --cni $IMAGE c0 ip -4 addr show eth0
cmp -s /opt/cni/bin/bridge /usr/lib/cni/bridge || nothing_is_left

check "run in the background" $CTR run --cni --detach $IMAGE c1
expect "eth0 has v4" 'inet 10\.88\.0\.[0-9]+/24' inside ip addr show eth0
expect "eth0 has v6" 'inet6 fd88::.*/64 scope global' inside ip addr show eth0
[ -z "${ETH0:-}" ] || expect "eth0 has the properties set by the chain" "$ETH0" inside ip link show eth0
expect "lo is up" 'LOOPBACK,UP' inside ip link show lo
check "ping the gateway's v4" inside ping -c1 -W2 10.88.0.1
eventually "ping the gateway's v6" inside ping -c1 -W2 fd88::1 # after its duplicate address detection
check "masquerade: ping outside, which has no return route" inside ping -c1 -W2 10.99.0.2
check "kill" $CTR tasks kill --signal TERM c1
eventually "stopped" stopped
check "remove" eval "$CTR tasks rm c1 && $CTR containers rm c1"
finish
