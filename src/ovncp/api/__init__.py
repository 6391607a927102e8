"""The platform's HTTP interface. See docs/platform.md for what it looks like from outside."""
