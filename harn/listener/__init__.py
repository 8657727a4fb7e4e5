"""The HTTP edge: one site whose routes are swapped in one step, and the resources that answer on it."""
