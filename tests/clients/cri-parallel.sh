#!/bin/bash
# cri-parallel.sh BIN_DIR: $PODS pods (default 12) in parallel through containerd's CRI (lib/parallel_pods.py).
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
start_containerd "$1" bridge portmap bandwidth
check "image import" $CTR --namespace k8s.io images import "$STAGE/image.tar"
"${PYTHON:-python3}" "$HERE/lib/parallel_pods.py" /run/containerd.sock "$STAGE" "${PODS:-12}" || bad "parallel pods"
nothing_is_left
finish
