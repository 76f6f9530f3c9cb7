"""ctweb: the connection table of a Linux machine, on its own eBPF datapath."""

import os

# Nothing here multiplies matrices. Threads that numpy starts for that, before the program gives up root, would keep it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
