"""kubelet.py SOCKET LOGS TYPE...: create, test and remove pods through the CRI, on a network of these plugins."""

import subprocess
import sys
from functools import partial

from checks import Checks
from cri import Cri, network_is_ready
from pod import NODE_NAMESPACE, Pod, configuration

PORT, PORT_OF_ONE_ADDRESS, UDP_PORT = 8080, 8081, 8082
HOST, HOST_V6, OUTSIDE = "10.99.0.1", "[fd99::1]", "10.99.0.2"
UDP = 1
NOT_READY = 1
IN_OUTSIDE = ("ip", "netns", "exec", "outside")

check = Checks()


def main(socket: str, logs: str, *chain: str) -> None:
    cri = Cri(socket)
    check.eventually("the network is ready", partial(network_is_ready, cri))
    web = Pod(cri, web_configuration(logs))
    web.start("/bin/httpd", "-f", "-p", "80", "-h", "/www")
    check_addresses(web)
    if "portmap" in chain:
        check_host_ports(web)
    if "bandwidth" in chain:
        shaped = on_host("tc", "qdisc", "show")[1].count("qdisc tbf")
        check("traffic is shaped both ways", shaped == 2, shaped)

    other = Pod(cri, configuration("other", logs))
    check("pod to pod", *web.run("ping", "-c1", "-W2", other.addresses()[0]))
    node = Pod(cri, configuration("node", logs, network=NODE_NAMESPACE))
    check("a pod in the node's network has no CNI address", node.addresses() == [""], node.addresses())

    for pod in (web, other, node):
        pod.stop()
    check("stopped", web.status()["state"] == NOT_READY, web.status())
    web.stop_sandbox()
    check("stopped again", web.status()["state"] == NOT_READY, web.status())
    for pod in (web, other, node):
        pod.remove()
    check.finish()


def web_configuration(logs: str) -> dict[str, object]:
    return configuration(
        "web",
        logs,
        dns_config={"servers": ["10.96.0.10"], "searches": ["default.svc.cluster.local"], "options": ["ndots:5"]},
        port_mappings=[
            {"container_port": 80, "host_port": PORT},
            {"container_port": 80, "host_port": PORT_OF_ONE_ADDRESS, "host_ip": HOST},
            {"container_port": 53, "host_port": UDP_PORT, "protocol": UDP},
        ],
        labels={"app": "web"},
        annotations={"kubernetes.io/ingress-bandwidth": "50M", "kubernetes.io/egress-bandwidth": "40M", "note": "hi"},
    )


def check_addresses(web: Pod) -> None:
    addresses = web.addresses()
    check(f"dual stack: {addresses}", [":" in address for address in addresses] == [False, True])
    _, eth0 = web.run("ip", "addr", "show", "eth0")
    check("eth0 has both addresses", all(address in eth0 for address in addresses), eth0)
    _, lo = web.run("ip", "link", "show", "lo")
    check("lo is up", "LOOPBACK,UP" in lo, lo)
    check("pod to gateway", *web.run("ping", "-c1", "-W2", "10.88.0.1"))
    # Only after the gateway's duplicate address detection.
    check.eventually("pod to gateway by v6", partial(web.run, "ping", "-c1", "-W2", "fd88::1"))
    check("pod to outside, which has no return route: masquerade", *web.run("ping", "-c1", "-W2", OUTSIDE))
    check.eventually("host to pod", partial(fetches, f"http://{addresses[0]}/"))  # after httpd has started


def check_host_ports(web: Pod) -> None:
    check("outside to host port", *fetches(f"http://{HOST}:{PORT}/", IN_OUTSIDE))
    check("outside to host port of one address", *fetches(f"http://{HOST}:{PORT_OF_ONE_ADDRESS}/", IN_OUTSIDE))
    check("outside to host port by v6", *fetches(f"http://{HOST_V6}:{PORT}/", IN_OUTSIDE))
    check("host to its host port", *fetches(f"http://{HOST}:{PORT}/"))
    check("host to its host port on localhost", *fetches(f"http://127.0.0.1:{PORT}/"))
    hairpin = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 4 {HOST} {PORT}"
    _, page = web.run("sh", "-c", hairpin)
    check("pod to its own host port: hairpin", "hello-pycni" in page, page)


def fetches(url: str, prefix: tuple[str, ...] = ()) -> tuple[bool, str]:
    _, page = on_host(*prefix, "curl", "--globoff", "-sS", "--max-time", "4", url)
    return "hello-pycni" in page, page


def on_host(*command: str) -> tuple[bool, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode == 0, done.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
