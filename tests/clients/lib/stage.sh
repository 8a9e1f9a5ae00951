# The isolated environment ("stage") of one client script: namespaces, directories and cgroups of its own, so that it does
# not affect the machine and several scripts can run at once. It has an uplink up0 (10.99.0.1, fd99::1) to a namespace
# "outside" (10.99.0.2, fd99::2). Also the functions for checks. Source this file, then call `enter_stage "$@"`.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FAILED=0
say() { echo "[$(date +%T)] $*"; }
ok() { say "  ok   $*"; }
bad() { say "  FAIL $*"; FAILED=$((FAILED + 1)); }
finish() { [ $FAILED = 0 ]; exit; }

# check NAME COMMAND...: the command succeeds.
check() { local name=$1 out; shift; if out=$("$@" 2>&1); then ok "$name"; else bad "$name :: $(tail -8 <<<"$out")"; fi; }

# expect NAME REGEX COMMAND...: the output of the command matches the expression.
expect() {
  local name=$1 regex=$2 out; shift 2; out=$("$@" 2>&1)
  if grep -qE -- "$regex" <<<"$out"; then ok "$name"; else bad "$name (want /$regex/) :: $(tail -8 <<<"$out")"; fi
}

# eventually NAME COMMAND...: the command succeeds within $TIMEOUT seconds (default 20).
eventually() {
  local name=$1 out deadline=$((SECONDS + ${TIMEOUT:-20})); shift
  until out=$("$@" 2>&1); do
    [ $SECONDS -lt $deadline ] || { bad "$name: not within ${TIMEOUT:-20} s :: $(tail -8 <<<"$out")"; return 1; }
    sleep 0.1
  done
  ok "$name"
}

# nothing NAME REGEX COMMAND...: the command succeeds, and no line of its output matches the expression.
nothing() {
  local name=$1 regex=$2 out; shift 2
  out=$("$@" 2>&1) || { bad "$name :: $out"; return; }
  if out=$(grep -E -- "$regex" <<<"$out"); then bad "$name :: $(head -8 <<<"$out")"; else ok "$name"; fi
}

# No state of an attachment is left. Containers have addresses in 10.88/15, fd88: and fd89:. State of whole subnets may
# stay, such as the bridge.
nothing_is_left() {
  nothing "no interface left" '^(veth|bwp)' ip -br link
  nothing "no lease left" '/networks/.*/[0-9a-f]+[.:][0-9a-f.:]*$' find /var/lib/cni -type f
  nothing "no cached result left" '/results/' find /var/lib/cni -type f
  nothing "no rule left" '(10\.8[89]\.[0-9.]+|fd8[89]:[0-9a-f:]+)([^0-9a-f:./]|$)' nft list ruleset
  nothing "no shaping left" 'tbf' tc qdisc show
  nothing "no namespace left" '^(cni|netns)-' ip netns list
}

# Outside the stage: create it, run the script in it, remove it, print PASS or FAIL. Inside: set it up.
enter_stage() {
  [ -z "${STAGE:-}" ] || { set_up_stage; [ -z "${SERVE:-}" ] || start_server; return; }
  [ $EUID = 0 ] || { say "$(basename "$0") needs root"; exit 2; }
  local kept=() variable group inner rc
  for variable in CNIVER CHAIN ETH0 PODS PYTHON CONTAINERD_DIR KUBERNETES_DIR SERVE; do
    [ -z "${!variable:-}" ] || kept+=("$variable=${!variable}")
  done
  STAGE=$(mktemp -d /tmp/pycni-clients.XXXXXX)
  mapfile -t CGROUPS <<<"$(parent_cgroups | sed "s,\$,/${STAGE##*/},")"
  for group in "${CGROUPS[@]}"; do make_cgroup "$group" || exit 2; done
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME="$STAGE" TMPDIR="$STAGE" STAGE="$STAGE" "${kept[@]}" \
    CGROUPS="${CGROUPS[*]}" setpriv --pdeathsig KILL \
    unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc \
    bash -c 'for group in $CGROUPS; do echo $$ >$group/cgroup.procs; done; exec unshare --cgroup bash "$0" "$@"' "$0" "$@" &
  inner=$!
  trap 'kill -KILL $inner' INT TERM HUP # kills all processes of its pid namespace
  wait $inner; rc=$?
  trap - INT TERM HUP
  wait $inner
  remove_stage || rc=1
  say "$(basename "$0"): $([ $rc = 0 ] && echo PASS || echo FAIL) after $SECONDS s with ${1:-}"
  exit $rc
}

# Start the server with the command $SERVE. It ends with the stage.
start_server() {
  $SERVE >"$STAGE/server.log" 2>&1 &
  eventually "the server is ready" grep -q "serving at" "$STAGE/server.log" || { cat "$STAGE/server.log"; exit 1; }
}

remove_stage() {
  local deadline=$((SECONDS + 10))
  rmdir "$STAGE"
  # The last processes of the namespace may still be exiting.
  until find "${CGROUPS[@]}" -depth -type d -exec rmdir {} \; >/dev/null 2>&1; [ -z "$(existing_cgroups)" ]; do
    [ $SECONDS -lt $deadline ] || { say "cgroups remain: $(existing_cgroups)"; return 1; }
    sleep 0.05
  done
}
existing_cgroups() { ls -d "${CGROUPS[@]}" 2>/dev/null; }

# Print the parent cgroups of the stage, one directory per line: those of this process, on a hybrid machine those of
# version 1. With version 2 only, the root: no other cgroup may contain processes and have child controllers.
parent_cgroups() {
  ! unified || { echo /sys/fs/cgroup; return; }
  local id names path
  while IFS=: read -r id names path; do
    [ ! "$names" ] || echo "/sys/fs/cgroup/${names#name=}${path%/}"
  done </proc/self/cgroup
}
unified() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }

make_cgroup() {
  mkdir "$1" || return
  [ ! -e "$1/../cpuset.cpus" ] || unified || # a new version 1 cpuset is empty and accepts no process
    { cat "$1/../cpuset.cpus" >"$1/cpuset.cpus" && cat "$1/../cpuset.mems" >"$1/cpuset.mems"; }
}

set_up_stage() {
  set -e
  mount -t tmpfs -o mode=755 tmpfs "$STAGE"
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t tmpfs tmpfs /dev/shm # podman's locks
  set_up_cgroups
  local directory
  for directory in /opt /etc /var/lib; do # changes are visible in the stage only
    mkdir -p "$STAGE/overlay$directory"/{upper,work}
    mount -t overlay overlay "$directory" \
      -o "lowerdir=$directory,upperdir=$STAGE/overlay$directory/upper,workdir=$STAGE/overlay$directory/work"
  done
  rm -rf /var/lib/cni /etc/cni
  mkdir -p /run/netns /run/lock /var/lib/cni /etc/cni/net.d /opt/cni/bin

  ip link set lo up
  ip netns add outside
  ip link add up0 type veth peer name up0 netns outside
  ip addr add 10.99.0.1/24 dev up0
  ip addr add fd99::1/64 dev up0 nodad
  ip link set up0 up
  ip -n outside link set lo up
  ip -n outside addr add 10.99.0.2/24 dev up0
  ip -n outside addr add fd99::2/64 dev up0 nodad
  ip -n outside link set up0 up
  ip route add default via 10.99.0.2
  ip route add default via fd99::2
  set +e
  trap 'rc=$?; ! declare -F stop_all >/dev/null || stop_all; exit $rc' EXIT
}

# Mount /sys for this network namespace, and the cgroups for this cgroup namespace.
set_up_cgroups() {
  local id names path version=1
  ! unified || version=2
  mount -t sysfs sysfs /sys
  if [ $version = 2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/stage # a cgroup with child controllers must not contain processes
    echo $$ >/sys/fs/cgroup/stage/cgroup.procs
    return
  fi
  # Version 1 only, even on a hybrid machine: crun does not support a hybrid whose version 2 has controllers.
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while IFS=: read -r id names path; do
    [ "$names" ] || continue
    mkdir "/sys/fs/cgroup/${names#name=}"
    mount -t cgroup -o "$names" cgroup "/sys/fs/cgroup/${names#name=}"
  done </proc/self/cgroup
}
