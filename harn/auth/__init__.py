"""Who may: our own credentials (bearer keys, signed requests), and the freshness of what is signed."""
