#!/bin/bash
# podman.sh BIN_DIR: podman with its CNI backend: networks, published ports, static addresses, several networks, pods.
. "$(dirname "$0")/lib/stage.sh"
enter_stage "$@"
BIN_DIR=$(cd "$1" && pwd) || exit 2
mkdir "$STAGE/net.d"
cat >"$STAGE/containers.conf" <<T
[containers]
apparmor_profile = ""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[network]
network_backend = "cni"
cni_plugin_dirs = ["$BIN_DIR"]
network_config_dir = "$STAGE/net.d"
default_subnet = "10.88.0.0/16"
T
export CONTAINERS_CONF=$STAGE/containers.conf
PODMAN="podman --root $STAGE/podman --runroot /run/podman --tmpdir /run/podman/tmp --log-level error"
stop_all() { $PODMAN rm -fa -t0 >/dev/null 2>&1; }
IMAGE=localhost/pycni-busybox:1
HTTPD="/bin/httpd -f -p 80 -h /www"
OUTSIDE="ip netns exec outside"
CURL="curl --globoff -sS --max-time 4"
fetched() { "$@" | grep hello-pycni; }

"${PYTHON:-python3}" "$HERE/lib/image.py" "$STAGE/image.tar"
check "load" $PODMAN load -q -i "$STAGE/image.tar"
say "$($PODMAN --version), $($PODMAN info -f '{{.Host.NetworkBackend}}, cgroups {{.Host.CgroupsVersion}}, {{.Host.OCIRuntime.Name}}')"
# podman creates its default network (bridge, portmap, firewall, tuning) on first use.
expect "run on the default network" 'inet 10\.88\.[0-9]+\.[0-9]+/16' $PODMAN run --rm $IMAGE ip -4 addr show eth0
check "network create t1, dual stack" $PODMAN network create --ipv6 --subnet 10.89.5.0/24 --gateway 10.89.5.1 \
  --subnet fd89:5::/64 --gateway fd89:5::1 --opt mtu=1400 --opt isolate=true t1
check "network create t2" $PODMAN network create --subnet 10.89.6.0/24 --ip-range 10.89.6.128/25 t2
# podman 4 always writes version 0.4.0.
check "set their version to ${CNIVER:-0.4.0}" sed -i "s/\"cniVersion\": \"0.4.0\"/\"cniVersion\": \"${CNIVER:-0.4.0}\"/" "$STAGE"/net.d/t{1,2}.conflist
expect "network ls" 't1 +bridge' $PODMAN network ls
check "run on t1 with published ports" $PODMAN run -d --name web --network t1 -p 8080:80 -p 10.99.0.1:8081:80/tcp \
  -p 8085-8086:85-86/udp --dns 10.9.9.9 $IMAGE $HTTPD
expect "v4 on t1" 'inet 10\.89\.5\.2/24' $PODMAN exec web ip addr show eth0
expect "v6 on t1" 'inet6 fd89:5::2/64' $PODMAN exec web ip addr show eth0
expect "mtu 1400" 'mtu 1400' $PODMAN exec web ip link show eth0
check "ping the gateway's v4" $PODMAN exec web ping -c1 -W2 10.89.5.1
eventually "ping the gateway's v6" $PODMAN exec web ping -c1 -W2 fd89:5::1 # after its duplicate address detection
check "masquerade: ping outside, which has no return route" $PODMAN exec web ping -c1 -W2 10.99.0.2
eventually "outside reaches the published port" fetched $OUTSIDE $CURL http://10.99.0.1:8080/
expect "outside reaches the port of one host address" hello-pycni $OUTSIDE $CURL http://10.99.0.1:8081/
expect "outside reaches the published port by v6" hello-pycni $OUTSIDE $CURL "http://[fd99::1]:8080/"
expect "the host reaches it on localhost" hello-pycni $CURL http://127.0.0.1:8080/
expect "inspect shows the address" '10\.89\.5\.2' $PODMAN inspect web -f '{{(index .NetworkSettings.Networks "t1").IPAddress}}'
check "run with static address and mac on two networks" $PODMAN run -d --name two \
  --network t1:ip=10.89.5.77,mac=92:d0:c6:0a:29:33,interface_name=net0 --network t2 $IMAGE
expect "net0 has its address" 'inet 10\.89\.5\.77/24' $PODMAN exec two ip addr show net0
expect "net0 has its mac" '92:d0:c6:0a:29:33' $PODMAN exec two ip addr show net0
expect "the second address is from its range" 'inet 10\.89\.6\.(12[89]|1[3-9].|2..)/24' $PODMAN exec two ip -4 addr
check "ping between containers" $PODMAN exec two ping -c1 -W2 10.89.5.2
check "network connect" $PODMAN network connect t2 web
expect "eth1 appeared" 'inet 10\.89\.6\.' $PODMAN exec web ip -4 addr show eth1
check "network disconnect" $PODMAN network disconnect t2 web
check "network reload" $PODMAN network reload web
expect "published port after reload" hello-pycni $OUTSIDE $CURL http://10.99.0.1:8080/
check "restart" $PODMAN restart -t0 web
eventually "published port after restart" fetched $OUTSIDE $CURL http://10.99.0.1:8080/
# Without a parent cgroup of the pod: with cgroup version 2, podman 4.3 denies it access to all devices.
check "pod create" $PODMAN pod create --name pod --share-parent=false --infra-image localhost/pycni-pause:1 --network t1 -p 8090:80
check "run in the pod" $PODMAN run -d --pod pod $IMAGE $HTTPD
eventually "the pod's published port" fetched $OUTSIDE $CURL http://10.99.0.1:8090/
check "pod rm" $PODMAN pod rm -f -t0 pod
check "rm all" $PODMAN rm -fa -t0
nothing_is_left
check "network rm" $PODMAN network rm t1 t2
nothing "no bridge left" 'cni-podman[1-9]' ip -br link
finish
