"""Forged revocations: none moves a state, whatever else about them is right."""

from __future__ import annotations

from dataclasses import replace

from tests.clock import FakeClock
from tests.follower.conftest import Street, integration
from tests.follower.test_payload_to_event import TEAM, at_github, at_slack, said_now
from tests.providers.signal_samples import github, github_installation, slack, stripe
from tests.signers import SIGNERS

MONTH_S = 30 * 24 * 3600.0


async def test_what_is_not_signed_by_the_provider_is_never_on_the_log(street: Street) -> None:
    """Another app's secret, a signature over another body, none at all: refused before anything is read."""
    await at_slack(street)
    await at_github(street)
    await street.registered("stripe's", "acme", "stripe", "account:acct_1032D82eZvKYlo2C")
    uninstalled = await said_now(street, slack({"type": "app_uninstalled"}))
    for sample in (uninstalled, github_installation("deleted"), stripe(created=int((await street.now()).timestamp()))):
        another = SIGNERS[sample.provider].secrets[2]
        await street.refused(sample, secret=another)
        target, headers, _ = street.house.signed(sample.provider, b"{}")
        assert headers
        await street.refused(replace(sample, headers={**sample.headers, **headers}), target=target)
        blank = dict.fromkeys(("x-slack-signature", "x-hub-signature-256", "stripe-signature"), "")
        await street.refused(replace(sample, headers={**sample.headers, **blank}))
    await street.follow()
    assert (await street.deliveries(), await street.moved(), await street.checks()) == ([], {}, 0)


async def test_what_is_signed_for_one_app_moves_nothing_of_another(street: Street) -> None:
    """Two apps of one platform at Slack: the second's customers are not the first's, though the workspace is."""
    await at_slack(street)
    other = SIGNERS["slack"].secrets[2]
    await integration(street.town, "staging", provider="slack", signing_secrets=[other.decode()])
    await street.registered("staging", "acme", "staging", f"team:{TEAM}")
    uninstalled = await said_now(street, slack({"type": "app_uninstalled"}))
    await street.refused(uninstalled, secret=other)  # to the first one's URL
    await street.refused(uninstalled, target="/hooks/staging")
    await street.deliver(uninstalled, secret=other, target="/hooks/staging")
    await street.follow()
    assert await street.moved() == {"staging": {"": "revoked"}}


async def test_a_genuine_delivery_of_another_account_moves_that_account_only(street: Street) -> None:
    """Whoever owns a workspace may uninstall there, and names no other: accounts are read from what is signed."""
    await at_slack(street)
    theirs = slack({"type": "app_uninstalled", "team_id": TEAM, "team": TEAM}, team_id="T9", authorizations=[])
    await street.deliver(await said_now(street, theirs))
    await street.follow()
    assert await street.moved() == {}
    assert await street.town.count("events WHERE delivery IS NOT NULL AND connections = '{}'") == 1


async def test_replayed_a_month_later_it_is_refused_or_stale_or_checked(street: Street, clock: FakeClock) -> None:
    """Slack signs the time of sending, Stripe too; GitHub signs none, so its word alone moves nothing.

    A stale signing secret that leaked signs anew what happened long ago: that is before the grant's last proof of life.
    """
    await at_slack(street)
    uninstalled, then = await said_now(street, slack({"type": "app_uninstalled"})), clock.now()
    deauthorized = stripe(created=int(then.timestamp()))
    await street.pass_s(clock, MONTH_S)
    await street.refused(uninstalled, at=then)
    await street.refused(deauthorized, at=then)
    await street.reconnected("acme", "bot")
    await street.reconnected("acme", "user")
    await street.reconnected("globex", "bot")
    street.known.pop("by hand")
    await street.deliver(uninstalled)
    await street.follow()
    assert await street.moved() == {}
    assert (await street.outcomes("globex"))[-1] == ("revoked", "stale")
    await at_github(street)
    await street.deliver(github("github_app_authorization", action="revoked"))
    await street.follow()
    while await street.check():
        pass
    assert await street.moved() == {}
    assert (await street.outcomes("acme"))[-1] == ("acquitted", "refuted")
