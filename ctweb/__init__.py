"""ctweb: the connection table of a Linux machine, on its own eBPF datapath."""
