"""Time and memory of the operator and of whole networks, beside what others offer: `halonet benchmark`."""
