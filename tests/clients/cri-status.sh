#!/bin/bash
# cri-status.sh BIN_DIR: containerd's CRI reports STATUS to kubelet (lib/readiness.py). Needs CNI 1.1.0, containerd 2.
. "$(dirname "$0")/lib/stage.sh"
. "$(dirname "$0")/lib/containerd.sh"
enter_stage "$@"
start_containerd "$1" bridge portmap bandwidth
"${PYTHON:-python3}" "$HERE/lib/readiness.py" /run/containerd.sock /var/lib/cni || bad "readiness"
finish
