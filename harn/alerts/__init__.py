"""Alerts: messages to people when something is wrong, once each, with an all-clear when it has ended."""
