"""All that touches the kernel: compiling, attaching, maps, clocks."""
