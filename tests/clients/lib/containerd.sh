# containerd in the script's environment, with BIN_DIR as /opt/cni/bin and one network in /etc/cni/net.d, the directories
# that ctr uses. CONTAINERD_DIR selects another build (1.x or 2.x) than the one on PATH.

CTR="ctr --address /run/containerd.sock"

# start_containerd BIN_DIR TYPE...: with a network of these plugins, or of those in $CHAIN.
start_containerd() {
  local bin_dir; bin_dir=$(cd "$1" && pwd) || exit 2; shift
  CHAIN=${CHAIN:-$*}
  mount --bind "$bin_dir" /opt/cni/bin
  conflist >/etc/cni/net.d/10-clients.conflist
  start_bare_containerd
  say "a network of $CHAIN and CNI ${CNIVER:-1.0.0}"
}

# Start containerd without plugins and networks.
start_bare_containerd() {
  PATH=${CONTAINERD_DIR:+$CONTAINERD_DIR:}$PATH
  containerd_toml >"$STAGE/containerd.toml"
  containerd --config "$STAGE/containerd.toml" >"$STAGE/containerd.log" 2>&1 &
  CONTAINERD=$!
  eventually "containerd answers" $CTR version || finish
  say "$(containerd --version)"
  "${PYTHON:-python3}" "$HERE/lib/image.py" "$STAGE/image.tar"
}

stop_all() {
  kill $CONTAINERD; wait $CONTAINERD
  [ $FAILED = 0 ] || grep -v level=info "$STAGE/containerd.log" | tail -15
}

# Print a dual-stack bridge that declares all capabilities, and the rest of the chain.
conflist() {
  local type plugins=
  for type in $CHAIN; do
    case $type in
      bridge) plugins+=',{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
        "capabilities":{"portMappings":true,"bandwidth":true,"ipRanges":true,"dns":true,"ips":true,"mac":true,
          "infinibandGUID":true,"deviceID":true,"aliases":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true},
        "ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]],
          "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}' ;;
      portmap) plugins+=',{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}' ;;
      bandwidth) plugins+=',{"type":"bandwidth","capabilities":{"bandwidth":true}}' ;;
      *) plugins+=",{\"type\":\"$type\"}" ;;
    esac
  done
  echo "{\"cniVersion\":\"${CNIVER:-1.0.0}\",\"name\":\"clients\",\"plugins\":[${plugins#,}]}"
}

containerd_toml() {
  local version=2 cri=io.containerd.grpc.v1.cri
  if containerd --version | grep -qE ' v?2\.'; then version=3 cri=io.containerd.cri.v1.runtime; fi
  cat <<T
version = $version
root = "$STAGE/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd.sock"
[plugins."$cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
$([ $version = 3 ] || echo '  sandbox_image = "localhost/pycni-pause:1"')
[plugins."$cri".cni]
  $([ $version = 3 ] && echo 'bin_dirs = ["/opt/cni/bin"]' || echo 'bin_dir = "/opt/cni/bin"')
  conf_dir = "/etc/cni/net.d"
$([ $version = 2 ] || printf '%s\n' "[plugins.'io.containerd.cri.v1.images'.pinned_images]" '  sandbox = "localhost/pycni-pause:1"')
T
}
