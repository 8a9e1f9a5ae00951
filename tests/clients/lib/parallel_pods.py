"""parallel_pods.py SOCKET LOGS N: create and remove N pods in parallel through containerd's CRI."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from checks import Checks
from cri import Cri, network_is_ready
from pod import Pod, configuration

FIRST_PORT = 9000


def main(socket: str, logs: str, count: int) -> None:
    check, cri = Checks(), Cri(socket)
    check.eventually("the network is ready", partial(network_is_ready, cri))

    def begin(number: int) -> Pod:
        port = {"container_port": 80, "host_port": FIRST_PORT + number}
        shaping = {"kubernetes.io/ingress-bandwidth": "50M"}
        return Pod(cri, configuration(f"pod{number}", logs, port_mappings=[port], annotations=shaping))

    def end(pod: Pod) -> None:
        pod.stop()
        pod.remove()

    # The first pod is created alone: concurrent calls of Debian's portmap fail while they create the shared chains.
    pods = [begin(0)]
    with ThreadPoolExecutor(count) as pool:
        pods += pool.map(begin, range(1, count))
        addresses = [address for pod in pods for address in pod.addresses()]
        check(f"{count} pods, {2 * count} different addresses", len(set(addresses)) == 2 * count, addresses)
        list(pool.map(end, pods))
    check.finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
