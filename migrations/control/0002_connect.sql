-- What connecting accounts needs to know of an integration, beside its client id and secrets.
ALTER TABLE control.integrations ADD COLUMN access_profiles jsonb NOT NULL DEFAULT '{}';   -- {name: {required, optional}}
ALTER TABLE control.integrations ADD COLUMN return_urls text[] NOT NULL DEFAULT '{}';      -- where a connect session may end

-- A version that was retired may be absent from a keyring; while it is held it must still be the same.
ALTER TABLE control.keyring_checks ADD COLUMN retired_at timestamptz;

-- Which processes serve, and what their keyrings hold: nothing is sealed under a new version before all can open it, and
-- none is retired while one of them seals under it. Rows of processes that were killed age (gateway/vault/holders.py).
CREATE TABLE control.keyring_holders (
  process uuid PRIMARY KEY,
  host text NOT NULL,
  current integer NOT NULL,
  versions integer[] NOT NULL,
  seen_at timestamptz NOT NULL
);
