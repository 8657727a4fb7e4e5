"""Inside an interpreter: the code that runs calls. It needs only the standard library and msgspec."""
