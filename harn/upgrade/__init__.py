"""Hand-over from a running server to a new program that takes its place: the upgrade in place."""
