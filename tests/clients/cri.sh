#!/bin/bash
# cri.sh BIN_DIR: create, test and remove a pod through containerd's CRI, as kubelet does (lib/kubelet.py).
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
start_containerd "$1" bridge portmap bandwidth
check "image import" $CTR --namespace k8s.io images import "$STAGE/image.tar"
"${PYTHON:-python3}" "$HERE/lib/kubelet.py" /run/containerd.sock "$STAGE" $CHAIN || bad "pod"
nothing_is_left
finish
