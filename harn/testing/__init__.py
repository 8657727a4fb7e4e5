"""The public testing kit for authors of connectors, destinations, stores and interpreters: suites, signers, clients."""
