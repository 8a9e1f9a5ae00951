"""Host ports that other attachments have: which are errors, which are stale, and which make a mapping secondary."""

from dataclasses import replace

from pycni.kernel.firewall.families import UNSPECIFIED
from pycni.kernel.firewall.nftables.elements import TABLE, Element
from pycni.kernel.firewall.nftables.host_ports.plan import any_address_key, is_any_address, is_one_address, secondary
from pycni.kernel.firewall.nftables.host_ports.table import MAPPING_SETS
from pycni.kernel.firewall.nftables.lookup import FoundElement, Lookup
from pycni.kernel.firewall.nftables.transaction import Change, ElementChange
from pycni.kernel.firewall.port_mappings import port_in_use
from pycni.kernel.owner import Owner, belongs_to_container, describe_owner
from pycni.protocol.errors import CniError


def resolve(kernel: Lookup, element: Element, owner: Owner) -> tuple[Element | None, list[Change]]:
    """Return the element to create in place of `element`, and the changes that must precede it in the transaction.

    It is the element itself, or a secondary mapping if the same container has the port by another network, or None if
    the container also has a secondary one. The changes delete stale elements, and make the transaction fail if another
    process maps the port on every address meanwhile. Raises CniError, code 11, if another container has the port.
    """
    changes: list[Change] = []
    any_address = any_address_key(element) if is_one_address(element) else None
    for set_name, key in filter(None, ((element.set_name, element.key), any_address)):
        found_in, found = _find_primary_or_secondary(kernel, set_name, key)
        if found is None or owner.owns(found.comment):
            changes += _fail_if_created(set_name, key) if (set_name, key) == any_address else []
        elif belongs_to_container(found.comment, owner.container_id):
            if found_in == set_name:
                return _secondary(kernel, element), []
        elif found.data and found.address_and_port.split()[0] != element.value.split()[0]:
            raise _in_use(element, found.comment)
        else:  # stale: it maps to our address, or (without data) belongs to such a mapping
            changes.append(ElementChange("delete", TABLE, found_in, key))
    return element, changes


def expect_no_single_address(kernel: Lookup, element: Element, owner: Owner) -> None:
    """Raise CniError, code 11, if another container has the port of `element` on a single address of the host.

    Elements that do not map a port on every address are ignored. The whole map of single addresses is listed.
    """
    if not is_any_address(element):
        return
    for other in kernel.elements_with_key_suffix(TABLE, f"hostip_{element.set_name}", element.key):
        if not belongs_to_container(other.comment, owner.container_id):
            raise _in_use(element, other.comment)


def _find_primary_or_secondary(kernel: Lookup, set_name: str, key: str) -> tuple[str, FoundElement | None]:
    """Return the element with the key, and the set or map that it is in: the primary one if both have it."""
    for name in (set_name, secondary(set_name)):
        found = kernel.element(TABLE, name, key)
        if found is not None:
            return name, found
    return set_name, None


def _fail_if_created(set_name: str, key: str) -> list[Change]:
    """Return changes without effect that make the transaction fail if the key exists by then."""
    value = f"{UNSPECIFIED[int(set_name[-1])]} . 0"
    return [
        ElementChange("create", TABLE, set_name, key, value=value),
        ElementChange("delete", TABLE, set_name, key),
    ]


def _secondary(kernel: Lookup, element: Element) -> Element | None:
    """Return the element as a secondary mapping; None if there is one already, or its kind has no secondary set."""
    name = secondary(element.set_name)
    if name not in MAPPING_SETS or kernel.element(TABLE, name, element.key) is not None:
        return None
    return replace(element, set_name=name)


def _in_use(element: Element, label: str) -> CniError:
    port = element.key.replace(" . ", "/") if is_any_address(element) else element.key
    return port_in_use(port, describe_owner(label))
