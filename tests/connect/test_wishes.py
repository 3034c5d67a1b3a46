"""What a session asks for, and what is missing afterwards. Pure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.connect import wishes
from gateway.connect.wishes import Wish
from gateway.connections.scopes import Ledger
from gateway.integrations.profiles import AccessProfile
from providers import google, slack
from providers.oauth import OAuthFacts

SCOPES = st.frozensets(st.sampled_from("abcdefgh"), max_size=8)
WHOLE: OAuthFacts = replace(google.OAUTH, incremental=False)
MORE: OAuthFacts = replace(google.OAUTH, incremental=True)


@given(required=SCOPES, optional=SCOPES, granted=SCOPES, given_now=SCOPES)
def test_a_mending_consent_asks_for_what_is_missing(
    required: frozenset[str], optional: frozenset[str], granted: frozenset[str], given_now: frozenset[str]
) -> None:
    """Required scopes before optional ones, and no others; where all of it is given, nothing required is missing then."""
    profile = AccessProfile(tuple(sorted(required)), tuple(sorted(optional - required)))
    wish = wishes.mending(profile, granted, MORE)
    missing = required - granted or frozenset(profile.optional) - granted
    assert (None if wish is None else frozenset(wish.ask)) == (missing or None)
    whole = wishes.mending(profile, granted, WHOLE)
    assert (whole is None) == (wish is None)
    assert whole is None or whole.ask == profile.scopes
    if wish is None:
        return
    before = Ledger(requested=profile.scopes, granted=tuple(sorted(granted)))
    silent = wish.ledger(None, before)  # the answer names no scopes: as asked for, beside what there was
    assert silent.reason is None
    assert set(silent.granted) == (missing if wish.ask == profile.scopes else granted | missing)
    told = wish.ledger(given_now, before)
    assert set(told.missing) == required - given_now
    assert wishes.from_json(wishes.as_json({"p": wish})) == {"p": wish}


def test_one_consent_fills_all_profiles_where_the_provider_has_fixed_ones() -> None:
    """Slack's bot and user; elsewhere a consent each."""
    assert wishes.next_consent(("bot", "user"), slack.OAUTH) == ("bot", "user")
    assert wishes.next_consent(("user",), slack.OAUTH) == ("user",)
    assert wishes.next_consent(("a", "b"), google.OAUTH) == ("a",)


def test_a_first_consent_that_names_no_scopes_gave_what_was_asked() -> None:
    """RFC 6749 section 5.1."""
    wish = wishes.whole(AccessProfile(("a",), ("b",)))
    assert wish == Wish(AccessProfile(("a",), ("b",)), ("a", "b"))
    assert wish.ledger(None, None).granted == ("a", "b")
