"""`posthouse simulate`: a described fleet under the real renewal policy, beside what everybody else does.

    fleet.py     the description (`fleet.toml` is the one that `make simulate` runs)
    uses.py      the calls of a connection's users: sums for schedules, drawn moments for people's sessions
    people.py    the generator: tenants, their connections, when each is used
    provider.py  a provider within a run: its minutes, its rate limit, its outages
    hybrid.py    this product: `subscriptions.policy` decides, nothing else does
    cron.py      "every quarter of an hour, refresh whatever expires soon"
    lazy.py      "refresh when somebody needs it": the floor of calls, and the ceiling of waiting
    tally.py     what is counted
    shards.py    many small fleets on all cores, added up
    goals.py     what is wanted of the result
    svg.py, picture.py    the picture

Time is seconds since a Monday, 00:00 UTC, at which every strategy stands as if it had run for long. Nothing sleeps, nothing
reads a clock, and chance is seeded: the same description and seed give the same result to the last call.

How far to believe it:

- Decisions are the product's own: `policy.plan`, `policy.quiet` and `hours.quiet` are called, tens of millions of times. What
  is around them (breaker, rate limit, traffic counts) is modelled in a few numbers, each beside the name of what it stands for.
- Providers are as fast as their limit allows. A minute is the grain of limits and of waiting for them, and each part of the
  fleet has its share of a limit to itself. Our own limiter keeps us under it, so what a run proves about 429s is that this
  costs no more waiting than it says.
- Cron and lazy are given the benefit of every doubt: cron paces itself after one 429 a call, and has a token refreshed each
  45 minutes, not each 30; of neither the calls in vain are counted against our calls, of ours all are.
- Not played: consents, reconnects and revocations within the week, lost answers, several grants of one connection,
  subscriptions, and refresh tokens with a hard end.
"""
