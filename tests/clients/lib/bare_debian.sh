#!/bin/bash
# bare_debian.sh ROOT UPPER SCRIPT: run SCRIPT as root of a bare Debian, in namespaces of its own.
#
# ROOT is a directory made by debootstrap; it is not changed. The directory UPPER receives the files that SCRIPT writes.
# The caller chooses the network namespace. Certificates that the administrator of this machine has added are added there
# too.
set -euo pipefail
if [ -z "${BARE_DEBIAN_INSIDE:-}" ]; then
  BARE_DEBIAN_INSIDE=1 exec unshare --mount --pid --fork --propagation private "$0" "$@"
fi
root=$1 upper=$2 script=$3 top=$2/top
mkdir -p "$upper"/{files,work,top}
mount -t overlay overlay -o "lowerdir=$root,upperdir=$upper/files,workdir=$upper/work" "$top"
mount -t proc proc "$top/proc"
mount --rbind /sys "$top/sys"
mount --rbind /dev "$top/dev"
mount -t tmpfs tmpfs "$top/run"
cp /etc/resolv.conf "$top/etc/resolv.conf"
settings=(HOME=/root "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" DEBIAN_FRONTEND=noninteractive)
if [ -n "${PIP_CERT:-}" ]; then
  mkdir -p "$top/usr/local/share/ca-certificates"
  cp "$PIP_CERT" "$top/usr/local/share/ca-certificates.pem"
  settings+=(PIP_CERT=/usr/local/share/ca-certificates.pem)
fi
cp "$script" "$top/script.sh"
exec chroot "$top" env -i "${settings[@]}" bash -ex /script.sh
