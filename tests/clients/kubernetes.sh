#!/bin/bash
# kubernetes.sh ROOT: the DaemonSet of deploy/ provides the network of a cluster of one node, also while it is restarted.
# ROOT is the root file system of its image (deploy/assemble ROOT).
#
# $KUBERNETES_DIR contains kubelet, kube-apiserver, kube-controller-manager and kube-scheduler. Debian has no packages of
# them, so the tests do not run this script. Build them from the source package kubernetes 1.20 of Debian bullseye, the
# last complete one, with its Go version:
#   make WHAT="cmd/kubelet cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler"
# Other requirements: containerd 1.x, etcd-server, kubectl (kubernetes-client), curl, openssl.
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
DEPLOY=$HERE/../../deploy
PYTHON=${PYTHON:-python3}
TIMEOUT=90
IMAGE=localhost/pycni-busybox:1
for directory in /opt /var/lib/pycni; do mkdir -p $directory && mount -t tmpfs tmpfs $directory; done

# RBAC is on: the DaemonSet's service account must work with the permission to read its node only.
TOKENS='admin,admin,1,"system:masters"
node,system:node:node1,2,"system:nodes"
scheduler,system:kube-scheduler,3,""'
API=10.96.0.1 # the service "kubernetes"; an address of the node, because there is no kube-proxy

kubeconfig() {
  cat >"$STAGE/$1.conf" <<C
apiVersion: v1
kind: Config
clusters: [{name: here, cluster: {server: "https://$API:443", insecure-skip-tls-verify: true}}]
users: [{name: $1, user: {token: $1}}]
contexts: [{name: here, context: {cluster: here, user: $1}}]
current-context: here
C
}
run() { local name=$1; shift; "$KUBERNETES_DIR/$name" "$@" >"$STAGE/$name.log" 2>&1 & }
k() { kubectl --kubeconfig "$STAGE/admin.conf" "$@"; }
field() { k get "$1" -o jsonpath="$2"; }

start_control_plane() {
  local local_etcd=http://127.0.0.1:2379 who
  cd "$STAGE" || finish
  ip addr add $API/32 dev lo
  for who in admin node scheduler; do kubeconfig $who; done
  echo "$TOKENS" >tokens.csv
  openssl genrsa -out account.key 2048 2>/dev/null
  etcd --data-dir etcd --listen-client-urls $local_etcd --advertise-client-urls $local_etcd \
    --listen-peer-urls http://127.0.0.1:2380 >etcd.log 2>&1 &
  run kube-apiserver --etcd-servers=$local_etcd --service-cluster-ip-range=10.96.0.0/16 --secure-port=443 \
    --advertise-address=10.99.0.1 --cert-dir=certificates --token-auth-file=tokens.csv --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-signing-key-file=account.key --service-account-key-file=account.key
  eventually "the API server answers" k get --raw /readyz || { tail -5 kube-apiserver.log; finish; }
  run kube-controller-manager --kubeconfig=admin.conf --leader-elect=false --cert-dir=certificates \
    --allocate-node-cidrs=true --cluster-cidr=10.244.0.0/16 \
    --service-account-private-key-file=account.key --root-ca-file=certificates/apiserver.crt
  run kube-scheduler --kubeconfig=scheduler.conf --leader-elect=false --cert-dir=certificates
}

start_kubelet() {
  run kubelet --kubeconfig=node.conf --hostname-override=node1 --node-ip=10.99.0.1 --root-dir="$STAGE/kubelet" \
    --cert-dir=certificates --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd.sock \
    --authorization-mode=AlwaysAllow --cgroups-per-qos=false --enforce-node-allocatable= --fail-swap-on=false \
    --resolv-conf=/dev/null --eviction-hard='nodefs.available<1%' --image-gc-high-threshold=100
}

pods() {
  cat <<Y
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 8
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {kubernetes.io/egress-bandwidth: 100M}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: "$IMAGE", command: [/bin/httpd, -f, -p, "80", -h, /www]}]
---
apiVersion: v1
kind: Pod
metadata: {name: port}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: web, image: "$IMAGE", command: [/bin/httpd, -f, -p, "80", -h, /www],
       ports: [{containerPort: 80, hostPort: 8080}]}
Y
}

ready() { field node/node1 '{range .status.conditions[?(@.type=="Ready")]}{.status}: {.message}{end}'; }
is_ready() { ready | grep ^True; }
is_rolled_out() { k rollout status "$@" --timeout=2s; }
refusals() { k get events -A -o jsonpath='{range .items[*]}{.reason}: {.message}{"\n"}{end}'; }
is_gone() { [ -z "$(k get pods -o name)" ] && ! ls /sys/class/net | grep '^veth'; }
is_removed() { [ -z "$(find /etc/cni/net.d /opt /var/lib/pycni -type f)" ]; }

start_bare_containerd
check "image import" "$PYTHON" "$HERE/lib/node_image.py" "$1" "$DEPLOY/Containerfile" "$STAGE/pycni.tar"
for tar in image pycni; do check "load $tar" $CTR --namespace k8s.io images import "$STAGE/$tar.tar"; done
start_control_plane
start_kubelet
eventually "the node is registered" k get node node1
eventually "it is not ready: no network" eval 'ready | grep "^False: .*\(cni\|network\) plugin"'

sed 's,image: .*,image: localhost/pycni:0.1.0,' "$DEPLOY/daemonset.yaml" >daemonset.yaml
check "kubectl apply" k apply -f daemonset.yaml
eventually "the DaemonSet is rolled out" is_rolled_out -n kube-system daemonset/pycni
eventually "the node is ready" is_ready
expect "the network has the node's range" "$(field node/node1 '{.spec.podCIDR}')" cat /etc/cni/net.d/10-pycni.conflist

check "apply pods" eval 'pods | k apply -f -'
eventually "eight pods are ready" is_rolled_out deployment/web
eventually "the pod with a host port is ready" k wait --for=condition=Ready pod/port --timeout=2s
for ip in $(field pods '{.items[*].status.podIP}'); do expect "HTTP of $ip" hello-pycni curl -sm5 "http://$ip/"; done
expect "host port from outside" hello-pycni ip netns exec outside curl -sm5 http://10.99.0.1:8080/
expect "pod to pod" ' 0% packet loss' k exec port -- ping -c1 -W2 "$(field pods '{.items[1].status.podIP}')"
expect "pod to outside" ' 0% packet loss' k exec port -- ping -c1 -W2 10.99.0.2
expect "shaping" 'tbf' tc qdisc show

check "restart the DaemonSet" k -n kube-system rollout restart daemonset/pycni
check "create pods during the restart" k scale deployment/web --replicas=16
eventually "sixteen pods are ready" is_rolled_out deployment/web
eventually "the DaemonSet is rolled out again" is_rolled_out -n kube-system daemonset/pycni
nothing "no pod failed for lack of a network" 'FailedCreatePodSandBox|FailedKillPod' refusals

check "delete the pods" eval 'pods | k delete -f - --timeout=60s'
eventually "their interfaces are removed" is_gone
check "REMOVE_ON_STOP" k -n kube-system set env daemonset/pycni REMOVE_ON_STOP=yes
eventually "the DaemonSet is rolled out once more" is_rolled_out -n kube-system daemonset/pycni
check "kubectl delete" k delete -f daemonset.yaml --timeout=90s
eventually "pycni is removed from the node" is_removed
nothing_is_left
finish
