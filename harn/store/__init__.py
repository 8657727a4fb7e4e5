"""All that is durable: inbox, deliveries, event log, bundles, generations; its interfaces name no database."""
