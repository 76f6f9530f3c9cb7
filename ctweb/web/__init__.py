"""What a browser or a script sees: pages, REST and the live table. Knows no BPF."""
