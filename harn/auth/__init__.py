"""Authentication with the server's own credentials (bearer keys, signed requests), and the freshness of signatures."""
