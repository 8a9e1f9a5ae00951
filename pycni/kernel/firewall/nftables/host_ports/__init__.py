"""Host ports by nftables: an attachment is labelled elements of maps and sets. This docstring has the invariants.

Which element stands for what (IPv4; IPv6 has the same with 6):

map hostports4 { tcp . 8080 : 10.1.0.2 . 80 }                     host port on every address of the host
map hostip_hostports4 { 192.0.2.1 . tcp . 8081 : 10.1.0.2 . 80 }  host port on one address
map more_hostports4 { tcp . 8080 : 10.2.0.2 . 80 }                secondary mapping: the same port of the same container
                                                                  by its second network; rules evaluate it last
set hairpin4 { "cni0" . 0.0.0.0 . tcp . 8080 }                    masquerade what arrives by the container's interface,
                                                                  else the container would answer the client directly
set masqueraded4 { 0.0.0.0 . tcp . 8080 }                         masquerade what arrives by any interface
map localnets { "veth3f9c…" : "localnet-cni0" }                   the attachment is reached from 127.0.0.1 by cni0; the
                                                                  counter counts such attachments
set guarded { "cni0" }                                            drop packets from and to 127.0.0.0/8 that arrive by
                                                                  cni0; the comment has the previous route_localnet
set publishers { "veth3f9c…" }                                    one element per attachment; its comment has the number
                                                                  of the other elements and rules of the attachment
chain hostport-conditions                                         labelled rules of mappings with conditions

Who may delete an element:

1. An element belongs to the attachment whose label is its comment. A DEL and a repeated ADD of that attachment delete
   it, and GC once the attachment is no longer valid.
2. Another attachment deletes it only if it is stale: it maps the port to the address that IPAM has assigned to the
   deleting attachment, or (hairpin, masqueraded) it belonged to such a mapping.
3. `guarded` elements and counters are shared. They are deleted when no `localnets` element refers to the counter (see
   route_localnet.py).
4. All elements of an attachment are added in one transaction with its `publishers` element. So DEL need not list the
   table if it finds as many elements as that comment says.

What makes simultaneous ADDs safe:

1. A host port on the same set of addresses has one key. The kernel refuses to create a key that exists, or to delete
   one that does not, so a transaction based on outdated lookups fails. It is then retried with new lookups, which find
   the other container's mapping, and ADD fails with code 11.
2. A port on every address and the same port on one address are keys of different maps. The ADD for one address also
   creates and deletes the key of the other map in its transaction, so it fails if that exists. The ADD for every
   address looks for keys of single addresses after its transaction, and fails if it finds another container's: then
   the journal removes its elements. Whichever transaction comes first, at least one of the two ADDs fails.
3. DEL holds an exclusive lock while it restores route_localnet, ADD a shared one while it starts to need it.
"""
