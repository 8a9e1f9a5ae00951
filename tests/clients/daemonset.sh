#!/bin/bash
# daemonset.sh ROOT: the DaemonSet of deploy/ installs pycni on a node without CNI. ROOT is the root file system of its image.
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
DEPLOY=$HERE/../../deploy
PYTHON=${PYTHON:-python3}
mkdir -p /var/lib/pycni
for directory in /opt /var/lib/pycni; do mount -t tmpfs tmpfs $directory; done
start_bare_containerd
daemonset() { "$PYTHON" "$HERE/lib/daemonset.py" /run/containerd.sock "$STAGE" "$DEPLOY/daemonset.yaml" "$@"; }
run_pods() { "$PYTHON" "$HERE/lib/kubelet.py" /run/containerd.sock "$STAGE" bridge portmap bandwidth; }
is_installed() { ls /etc/cni/net.d/10-pycni.conflist /opt/cni/bin/{bridge,portmap,bandwidth,host-local,loopback} /opt/pycni-node/*/node.py; }
# Let one-shot executables, which launchers run when there is no server, log their calls.
log_oneshots() { sed -i "3a echo \"\$0 \$CNI_COMMAND\" >>$STAGE/oneshot.log" /var/lib/pycni/oneshot/*/*/*; }
server() { pgrep -of '^/opt/pycni-node/[0-9a-f]*/bin/python3 -P -m pycni serve'; }
# logged_in_order NAMES: the container logged that these were installed, started, stopped or removed, in this order.
logged_in_order() {
  sed -nE 's/.* (installed|removed) (\S+)$/\2/p; s/.* server (is ready|stopped)$/server/p' "$STAGE/main.log" | xargs -n1 basename |
    sed 's/^[0-9a-f]*$/ID/' | paste -sd' ' | grep -x "$1"
}

check "image import" "$PYTHON" "$HERE/lib/node_image.py" "$1" "$DEPLOY/Containerfile" "$STAGE/pycni.tar"
for tar in image pycni; do check "load $tar" $CTR --namespace k8s.io images import "$STAGE/$tar.tar"; done
CIDRS=10.88.0.0/24,fd88::/64

POD=$(daemonset POD_CIDRS=$CIDRS) || bad "the DaemonSet's pod did not start"
eventually "pycni is installed on the node" is_installed || cat "$STAGE/main.log"
check "the server runs" server
nothing "it uses no libraries of the node" '^/(usr|lib|lib64)/.*\.so' awk '{print $6}' /proc/"$(server)"/maps
log_oneshots
check "the configuration was installed last" logged_in_order 'ID server 10-pycni.conflist'
run_pods || bad "pods with the server"
check "the server answered all calls" test ! -e "$STAGE/oneshot.log"

check "stop" daemonset stop $POD
check "plugins and configuration are still installed" is_installed
nothing "the server has ended" . eval 'server || true'
run_pods || bad "pods without the server"
expect "one-shot executables ran the plugins" 'bridge ADD' cat "$STAGE/oneshot.log"

: >"$STAGE/main.log"
POD=$(daemonset POD_CIDRS=$CIDRS REMOVE_ON_STOP=yes) || bad "the second pod did not start"
eventually "the server runs again" server
eventually "everything is installed" logged_in_order 'ID server 10-pycni.conflist' || cat "$STAGE/main.log"
: >"$STAGE/main.log"
check "stop and remove" daemonset stop $POD
check "removed in reverse order" logged_in_order '10-pycni.conflist server ID'
nothing "nothing is left" . find /etc/cni/net.d /opt /var/lib/pycni -type f
nothing_is_left
finish
