"""The manifest: from TOML text to a checked `harn.manifest.model.Manifest`, or every problem at once."""
