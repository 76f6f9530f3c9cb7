"""The connection table in user space: pure functions over numpy columns."""
