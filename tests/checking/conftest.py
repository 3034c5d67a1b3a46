"""The street of the follower's tests, for checks and the guard."""

from tests.follower.conftest import bare_town, lines, quiet, second, street, town

__all__ = ["bare_town", "lines", "quiet", "second", "street", "town"]  # fixtures
