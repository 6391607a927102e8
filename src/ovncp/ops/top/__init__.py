"""`ovncp top`: how a server fares, live in a terminal, from its metrics (docs/metrics.md)."""
