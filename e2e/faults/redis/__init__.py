"""The queue's tier: its arena, the ways to break it, and its suite."""
