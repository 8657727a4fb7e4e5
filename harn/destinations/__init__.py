"""Where deliveries go: what a destination is, those of this installation, and the first of them, local functions."""
