"""What any store must pass: one suite, and what its tests are made of."""
