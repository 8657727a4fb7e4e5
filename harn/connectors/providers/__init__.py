"""The providers that come with harn, one module each: declarations of a sender, or a plugin with its connector."""
