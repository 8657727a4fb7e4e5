"""The watcher: from file events to debounced reloads of settled content."""
