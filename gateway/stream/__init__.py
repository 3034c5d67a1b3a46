"""The one log: appended under one lock a region, read after a cursor, followed by consumers."""
