"""Inside an interpreter: what runs the calls. It needs the standard library and msgspec alone."""
