"""The log, proved by trying to break it."""
