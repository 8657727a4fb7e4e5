"""The HTTP edge: one site whose routes are swapped in one step, and everything that answers on it."""
