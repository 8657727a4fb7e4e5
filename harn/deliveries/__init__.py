"""Deliveries in hand: lists of them, one with all that happened to it, dead letters in groups, fixtures."""
