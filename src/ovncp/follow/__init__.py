"""Following databases of another server, as relays and the platform do."""
