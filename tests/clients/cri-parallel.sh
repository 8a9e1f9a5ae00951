#!/bin/bash
# cri-parallel.sh BIN_DIR: $PODS pods (twelve) at the same time through containerd's CRI (lib/pods_at_once.py).
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
start_containerd "$1" bridge portmap bandwidth
check "image import" $CTR --namespace k8s.io images import "$STAGE/image.tar"
"${PYTHON:-python3}" "$HERE/lib/pods_at_once.py" /run/containerd.sock "$STAGE" "${PODS:-12}" || bad "pods at once"
nothing_is_left
finish
