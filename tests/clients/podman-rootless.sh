#!/bin/bash
# podman-rootless.sh BIN_DIR: podman of an unprivileged user with its CNI backend; published ports and two networks. The
# plugins run as root of a user namespace, and each podman command has a mount namespace of its own for them.
. "$(dirname "$0")/lib/stage.sh"
enter_stage "$@"
BIN_DIR=$(cd "$1" && pwd) || exit 2
USER_ID=4242
HOME_DIR=$STAGE/home
RUNTIME_DIR=/run/user/$USER_ID
echo "pycni:x:$USER_ID:$USER_ID::$HOME_DIR:/bin/sh" >>/etc/passwd
echo "pycni:x:$USER_ID:" >>/etc/group
echo "pycni:100000:65536" | tee /etc/subuid >/etc/subgid
mkdir -p "$HOME_DIR" "$RUNTIME_DIR" "$STAGE/net.d" "$STAGE/dev"
chmod 755 "$STAGE"
chmod 700 "$RUNTIME_DIR"
mknod -m 666 "$STAGE/dev/tun" c 10 200 # slirp4netns opens it as the user
mount --bind "$STAGE/dev/tun" /dev/net/tun
cat >"$STAGE/containers.conf" <<T
[containers]
apparmor_profile = ""
cgroups = "disabled"
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
"${PYTHON:-python3}" "$HERE/lib/image.py" "$STAGE/image.tar"
chmod 644 "$STAGE/image.tar" "$STAGE/containers.conf"
chown -R $USER_ID:$USER_ID "$HOME_DIR" "$RUNTIME_DIR" "$STAGE/net.d"
PODMAN="setpriv --reuid $USER_ID --regid $USER_ID --clear-groups env HOME=$HOME_DIR TMPDIR=$HOME_DIR
  XDG_RUNTIME_DIR=$RUNTIME_DIR CONTAINERS_CONF=$STAGE/containers.conf
  podman --root $HOME_DIR/storage --runroot $RUNTIME_DIR/storage --log-level error"
stop_all() { $PODMAN rm -fa -t0 >/dev/null 2>&1; }
IMAGE=localhost/pycni-busybox:1
CURL="curl --globoff -sS --max-time 4"
fetched() { "$@" | grep hello-pycni; }

check "load" $PODMAN load -q -i "$STAGE/image.tar"
say "$($PODMAN --version), $($PODMAN info -f '{{.Host.NetworkBackend}}, rootless {{.Host.Security.Rootless}}')"
check "network create t1" $PODMAN network create --subnet 10.89.5.0/24 t1
check "network create t2" $PODMAN network create --subnet 10.89.6.0/24 t2
for number in 1 2 3 4; do
  check "run c$number with a published port" $PODMAN run -d --name c$number --network t1 -p 808$number:80 $IMAGE /bin/httpd -f -p 80 -h /www
done
expect "the first address" 'inet 10\.89\.5\.2/24' $PODMAN exec c1 ip -4 addr show eth0
expect "another address" 'inet 10\.89\.5\.5/24' $PODMAN exec c4 ip -4 addr show eth0
check "ping between containers" $PODMAN exec c1 ping -c1 -W2 10.89.5.5
eventually "the host reaches the published port" fetched $CURL http://127.0.0.1:8084/
check "network connect" $PODMAN network connect t2 c1
expect "eth1 appeared" 'inet 10\.89\.6\.' $PODMAN exec c1 ip -4 addr show eth1
check "network disconnect" $PODMAN network disconnect t2 c1
check "restart" $PODMAN restart -t0 c2
eventually "published port after restart" fetched $CURL http://127.0.0.1:8082/
for number in 1 2 3; do check "rm c$number" $PODMAN rm -f -t0 c$number; done
expect "the address of the last container" 'inet 10\.89\.5\.5/24' $PODMAN exec c4 ip -4 addr show eth0
check "rm c4" $PODMAN rm -f -t0 c4
check "network rm" $PODMAN network rm t1 t2
nothing "no lease left" '/networks/.*/[0-9a-f]+[.:][0-9a-f.:]*$' find "$RUNTIME_DIR" -type f
finish
