"""Time and memory of the operator and of whole networks, compared with other packages: `halonet benchmark`."""
