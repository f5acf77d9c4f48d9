"""Training: the driver of rounds, what surrounds it, and what comes out."""
