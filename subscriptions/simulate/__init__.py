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

What is not played: consents, reconnects and revocations within the week, lost answers, and what a call costs. Providers are
as fast as their limit allows; one minute is the grain of limits and waiting.
"""
