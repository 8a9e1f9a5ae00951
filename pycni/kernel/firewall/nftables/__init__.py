"""The nftables backend: few static rules, and sets and maps whose elements carry the label of their attachment.

`elements` adds, checks and removes elements. `transaction` and `lookup` speak nftables' netlink protocol; `nft` runs
what needs nft's own language through libnftables. Modules named `go_…` read and remove what the Go plugins created.
"""
