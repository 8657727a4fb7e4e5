"""The suite that any store must pass, and its parts."""
