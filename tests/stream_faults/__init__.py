"""Streaming units as processes on real brokers, and what goes wrong around them; see docs/stream-faults.md."""
