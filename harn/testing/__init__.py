"""What authors of connectors, stores and interpreters test with: suites that any must pass, signers, clients."""
