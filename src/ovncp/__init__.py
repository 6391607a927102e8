"""Open Virtual Network at the scale of thousands of hypervisors: docs/flow.md is the way in."""

__version__ = "0.1.0"
