"""The same traffic through nf_conntrack and through ctweb on one router: both must know the same connections."""
