"""Several servers on one store: which of them live, what one does for all, and what is left by those that do not."""
