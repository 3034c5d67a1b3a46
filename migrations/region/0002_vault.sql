-- Connect and vault: grants with their sealed tokens, the tenants' data keys, connect sessions, what is being ended.

-- A data key per tenant and version, wrapped by the region's key (local keyring or Transit). Destroying a tenant's rows
-- here is destroying every token of that tenant (crypto-shredding). `wrapped_under` is the region's key version, for
-- rotation: what is left to wrap again is found without opening anything.
CREATE TABLE gateway.data_keys (
  tenant_id text NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  wrapped bytea NOT NULL,
  wrapped_under integer NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, version)
);
-- One sequence for all tenants: a tenant that was erased and made again knows no version of its former life, so a
-- process that still holds the former key can neither open nor seal with it.
CREATE SEQUENCE gateway.data_key_versions AS integer;
CREATE INDEX data_keys_wrapping ON gateway.data_keys (wrapped_under, tenant_id, version);

-- What a consent gave for one access profile. `generation` counts consents, `token_version` counts token sets (over all
-- generations, so that (connection, profile, version) names one set for ever). Scopes are a ledger.
CREATE TABLE gateway.grants (
  connection_id uuid NOT NULL REFERENCES gateway.connections ON DELETE CASCADE,
  access_profile text NOT NULL CHECK (access_profile ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  state text NOT NULL
    CHECK (state IN ('pending', 'active', 'suspect', 'suspended', 'reauth_required', 'revoked', 'closed')),
  reason text,                        -- why it is in that state, e.g. scopes_missing
  since timestamptz NOT NULL DEFAULT gateway.now(),   -- when it came into that state with that reason
  generation integer NOT NULL CHECK (generation > 0),
  token_version integer NOT NULL CHECK (token_version > 0),
  held boolean NOT NULL DEFAULT false,   -- imported before a cut-over: neither refreshed nor renewed
  restored boolean NOT NULL DEFAULT false,   -- came out of a backup: its refresh token may be superseded, so only on command
  source_mac bytea,                   -- keyed hash of the token set it was imported with: the same line again is no news
  kind text NOT NULL DEFAULT 'code' CHECK (kind IN ('code', 'client_credentials', 'installation')),
  requested text[] NOT NULL DEFAULT '{}',
  granted text[] NOT NULL DEFAULT '{}',
  missing text[] NOT NULL DEFAULT '{}',  -- required, and never granted in this generation
  lost text[] NOT NULL DEFAULT '{}',     -- required, granted once, gone since
  optional_missing text[] NOT NULL DEFAULT '{}',
  parameters jsonb NOT NULL DEFAULT '{}',   -- URL parts that the user chose, and what API calls need beside the token
  reach_hash uuid,                    -- keyed hash of what a revocation at the provider would reach: others may share it
  granted_at timestamptz NOT NULL,    -- when the consent was given, by the region's clock
  PRIMARY KEY (connection_id, access_profile)
);
CREATE INDEX grants_reach ON gateway.grants (reach_hash) WHERE reach_hash IS NOT NULL;
CREATE INDEX grants_restored ON gateway.grants (connection_id) WHERE restored;
CREATE INDEX grants_held ON gateway.grants (connection_id) WHERE held;

-- The current token set of a grant, sealed under the tenant's data key; AAD binds region, tenant, connection, access
-- profile, generation, token version and purpose. Nothing else lives here: no API key, no user's credential, and no
-- token outside the two sealed columns. In KV mode those are null and `kv_path` names the immutable blob in Vault.
CREATE TABLE gateway.tokens (
  connection_id uuid NOT NULL,
  access_profile text NOT NULL,
  tenant_id text NOT NULL,
  generation integer NOT NULL,
  token_version integer NOT NULL,
  data_key_version integer NOT NULL,
  sealed_access bytea,
  sealed_refresh bytea,
  kv_path text,
  has_refresh boolean NOT NULL,
  token_type text NOT NULL DEFAULT 'Bearer',
  issued_at timestamptz NOT NULL,     -- by the region's clock: when the answer that brought it was stored
  expires_at timestamptz,             -- null: does not expire
  refresh_expires_at timestamptz,     -- null: not known, or never
  PRIMARY KEY (connection_id, access_profile),
  FOREIGN KEY (connection_id, access_profile) REFERENCES gateway.grants ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys (tenant_id, version),
  CHECK ((sealed_access IS NULL) = (kv_path IS NOT NULL))
);
CREATE INDEX tokens_data_key ON gateway.tokens (tenant_id, data_key_version, connection_id, access_profile);   -- a rotation's walk
CREATE UNIQUE INDEX tokens_kv_path ON gateway.tokens (kv_path) WHERE kv_path IS NOT NULL;   -- the sweep asks for paths

-- A link for one end user, and what became of it (PROTOCOLS 7). Tokens that came back wait in `staged_tokens` until the
-- platform's backend completes the session. Link, state, browser and code are kept as keyed hashes; the PKCE verifier
-- is sealed under the region's keyring.
CREATE TABLE gateway.connect_sessions (
  id uuid PRIMARY KEY,
  tenant_id text NOT NULL,
  integration_id uuid NOT NULL,
  connection_id uuid NOT NULL,        -- the one it will make, or the one it reconnects
  reconnects boolean NOT NULL,
  end_user_id text,
  external_id text,
  labels jsonb NOT NULL DEFAULT '{}',
  profiles jsonb NOT NULL,            -- {profile: {"required": [...], "optional": [...], "ask": [...]}} as they were when it was made
  asked text[] NOT NULL,              -- access profiles still to be consented to, in order
  parameters jsonb NOT NULL DEFAULT '{}',
  return_url text,
  allow_account_switch boolean NOT NULL DEFAULT false,
  state text NOT NULL CHECK (state IN ('created', 'opened', 'returned', 'completed', 'failed', 'expired')),
  outcome text,                       -- connected, denied, scopes_missing, wrong_account, provider_error, …
  reason text,                        -- a code that says more of it: the provider's, where that is a plain word
  wrong_codes integer NOT NULL DEFAULT 0,   -- guesses at the one-time code: after the fifth the session has failed
  link_hash bytea NOT NULL UNIQUE,
  browser_hash bytea,                 -- of the cookie of the browser that pressed the button
  state_hash bytea UNIQUE,            -- of the `state` under way
  sealed_verifier bytea,              -- PKCE verifier and nonce of the consent under way
  code_hash bytea,                    -- of the one-time code that completes it
  subject_hash uuid,                  -- the account that consented
  created_by uuid,                    -- API key
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX ON gateway.connect_sessions (expires_at);
CREATE INDEX connect_sessions_open ON gateway.connect_sessions (expires_at) WHERE state IN ('created', 'opened', 'returned');
CREATE INDEX ON gateway.connect_sessions (tenant_id, id);
CREATE INDEX ON gateway.connect_sessions (connection_id, id);

CREATE TABLE gateway.staged_tokens (
  session_id uuid NOT NULL REFERENCES gateway.connect_sessions ON DELETE CASCADE,
  access_profile text NOT NULL,
  tenant_id text NOT NULL,
  data_key_version integer NOT NULL,
  sealed bytea NOT NULL,              -- the whole token set as JSON; purpose `staged`
  answered_at timestamptz NOT NULL,
  epoch bigint NOT NULL,              -- of the log, then: in a copy of the database it may have been completed elsewhere
  PRIMARY KEY (session_id, access_profile),
  FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys (tenant_id, version)
);
CREATE INDEX ON gateway.staged_tokens (tenant_id, data_key_version, session_id, access_profile);

ALTER TABLE gateway.connections ADD COLUMN subject_hash uuid;   -- the account itself: a reconnect must be the same one
ALTER TABLE gateway.connections ADD COLUMN reason text;         -- why it is in its state
-- What became of its tokens at the provider when it ended, once no closing task is left. Null: there were none.
ALTER TABLE gateway.connections ADD COLUMN revocation text CHECK (revocation IN ('done', 'not_needed', 'given_up'));

-- Tokens of connections that ended, kept sealed while their revocation at the provider is tried (72 h at most). No API
-- reads them.
CREATE TABLE gateway.closing_tasks (
  id uuid PRIMARY KEY,
  tenant_id text NOT NULL,
  connection_id uuid NOT NULL,
  access_profile text NOT NULL,
  integration_id uuid NOT NULL,
  data_key_version integer NOT NULL,
  sealed bytea NOT NULL,              -- purpose `closing`
  parameters jsonb NOT NULL DEFAULT '{}',
  reach_hash uuid,                    -- of whom else a revocation would reach, asked just before it is sent:
  accounts uuid[] NOT NULL DEFAULT '{}',   -- the accounts that the connection had, where the reach is not known
  subject_hash uuid,                  -- and the account, of which a new consent may be under way
  due_at timestamptz NOT NULL,
  until timestamptz NOT NULL,
  tries integer NOT NULL DEFAULT 0,
  last_error text,                    -- a code, never a text of the provider's
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  fence bigint NOT NULL DEFAULT 0,
  FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys (tenant_id, version)
);
CREATE INDEX ON gateway.closing_tasks (due_at);
CREATE INDEX ON gateway.closing_tasks (connection_id);
CREATE INDEX ON gateway.closing_tasks (tenant_id, data_key_version, id);

-- Who was given what, one row a read, written by the statement that checks the fence (PROTOCOLS 10). Append-only; the
-- hash chain over it comes with Governance.
CREATE TABLE gateway.audit (
  at timestamptz NOT NULL,
  action text NOT NULL,               -- token.read, token.export, …
  actor uuid NOT NULL,                -- API key
  tenant_id text NOT NULL,
  connection_id uuid,
  access_profile text,
  generation integer,
  token_version integer
);
CREATE INDEX audit_at ON gateway.audit USING brin (at);

-- Rotation of keys, one row for each kind under way or done last: resumable, and its progress readable from anywhere.
-- Whoever takes a step moves `touched_at`; one that stands still is taken up by a process that serves.
CREATE TABLE gateway.key_rotations (
  kind text PRIMARY KEY CHECK (kind IN ('wrap', 'data')),
  target integer NOT NULL,            -- the region key's version that everything is wrapped under in the end
  began_at timestamptz NOT NULL,      -- also which rotation this is: a step of an older one changes nothing
  touched_at timestamptz NOT NULL,
  ended_at timestamptz,
  total bigint NOT NULL,
  done bigint NOT NULL DEFAULT 0,
  broken bigint NOT NULL DEFAULT 0,   -- what did not open in the last round, and was left as it is
  position jsonb NOT NULL DEFAULT '{}'
);

-- For which epoch of the log the grants have been looked at. Behind `epoch`: the database was put back, and until all
-- grants of providers that rotate are marked `restored`, nothing is refreshed (PROTOCOLS 12).
ALTER TABLE gateway.epoch ADD COLUMN tokens_epoch bigint;
UPDATE gateway.epoch SET tokens_epoch = epoch;
ALTER TABLE gateway.epoch ALTER COLUMN tokens_epoch SET NOT NULL;

-- `append` anew, faster: what events have in common is sent once, and the answer comes in arrays.
DROP FUNCTION gateway.append(uuid[], uuid[], integer[], text[], timestamptz[], uuid[], uuid[], boolean[], boolean[], text[], text[], bytea[], text[]);
-- THE way onto the log, for deliveries and for state changes alike, as the last statement before COMMIT.
--   1. Keys go into dedupe in key order, so that two batches can only wait for each other in one direction. A key
--      that another open transaction holds makes us wait for its fate: "duplicate" means "kept", never "maybe".
--   2. One advisory lock per region, held until COMMIT is visible. `seq` is drawn under it, so order of seq is order
--      of commit for every reader, and "after my cursor" never skips one that was slow.
--   3. Connections are looked up after the lock (each statement of a VOLATILE function sees what was committed when
--      it starts): an activation whose event has a lower seq is seen, one with a higher seq is not. So the look-back
--      after an activation needs only the events before it: nothing falls between.
-- Returns arrays, one entry a kept event in the order of its seq; `ids` is null where all that came were kept, in their
-- order. Those missing were duplicates, or, where they are among `dropped`, matched no connection and were not wanted
-- then. `waited_s` is the time spent on the lock.
-- Arrays run in parallel, one entry an event, but those named kind_…: an event's `kinds` is the place there of what it
-- has in common with many others. `accounts` holds uuid[] literals. No joins between the arrays, since the planner
-- knows nothing of their length and would nest loops; and no CTE around the rows, which would copy each body.
CREATE FUNCTION gateway.append(
  new_ids uuid[], keys uuid[], kinds integer[], times timestamptz[], accounts text[], deliveries text[], datas bytea[],
  kind_types text[], kind_windows_s integer[], kind_integrations uuid[], kind_connections uuid[], kind_drops boolean[],
  kind_signals boolean[], kind_content_types text[],
  OUT ids uuid[], OUT seqs bigint[], OUT matched boolean[], OUT dropped uuid[], OUT waited_s double precision
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan   -- the arrays differ, the plan does not: planning cost more than running
AS $$
#variable_conflict use_column
DECLARE
  fresh uuid[];
  all_fresh boolean;
  before timestamptz;
  kept_at timestamptz := gateway.now();
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN   -- else 1 and 3 would look at an older snapshot
    RAISE 'gateway.append needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  WITH kept AS (
    INSERT INTO gateway.dedupe (key, expires_at)
    SELECT i.key, kept_at + kind_windows_s[i.kind] * interval '1 second' FROM unnest(keys, kinds) AS i(key, kind) ORDER BY i.key
    ON CONFLICT (key) DO NOTHING RETURNING key)
  SELECT array_agg(key) INTO fresh FROM kept;
  IF fresh IS NULL THEN
    RETURN;
  END IF;
  all_fresh := cardinality(fresh) = cardinality(keys);

  before := clock_timestamp();
  PERFORM pg_advisory_xact_lock(hashtext('posthouse.append'));
  waited_s := extract(epoch FROM clock_timestamp() - before);
  kept_at := gateway.now();

  WITH kept AS (
    INSERT INTO gateway.events (seq, at, id, type, time, integration_id, connections, tenants, partitions, accounts,
                                signal, content_type, delivery, data)
    SELECT nextval('gateway.events_seq'), kept_at, i.id, kind_types[i.kind], i.time, kind_integrations[i.kind],
           coalesce(mine.connections, '{}'), coalesce(mine.tenants, '{}'),
           CASE WHEN mine.connections IS NULL
                THEN ARRAY[gateway.partition_of(coalesce(i.accounts[1], kind_integrations[i.kind], i.id))]
                ELSE ARRAY(SELECT DISTINCT gateway.partition_of(c) FROM unnest(mine.connections) AS c ORDER BY 1) END,
           i.accounts, kind_signals[i.kind], kind_content_types[i.kind], i.delivery::json, i.data
      FROM (SELECT id, key, kind, time, account::uuid[] AS accounts, delivery, data
              FROM unnest(new_ids, keys, kinds, times, accounts, deliveries, datas)
                     AS i(id, key, kind, time, account, delivery, data)
            OFFSET 0) AS i   -- so each literal is read once
      LEFT JOIN LATERAL (
        SELECT array_agg(c.id ORDER BY c.id) AS connections, array_agg(c.tenant_id ORDER BY c.id) AS tenants
          FROM gateway.connections c
         WHERE (c.state NOT IN ('pending', 'closed')
                OR kind_connections[i.kind] IS NOT NULL AND i.delivery IS NULL)   -- our own word on its end
           AND c.id = ANY (CASE WHEN kind_connections[i.kind] IS NOT NULL THEN ARRAY[kind_connections[i.kind]] ELSE ARRAY(
                 SELECT a.connection_id FROM gateway.connection_accounts a
                  WHERE a.integration_id = kind_integrations[i.kind] AND a.account_hash = ANY (i.accounts)) END)
      ) AS mine ON true
     WHERE (all_fresh OR i.key = ANY (fresh)) AND NOT (kind_drops[i.kind] AND mine.connections IS NULL)
    RETURNING events.id, events.seq, events.connections <> '{}' AS matched)
  SELECT array_agg(id), array_agg(seq), array_agg(matched) INTO ids, seqs, matched FROM kept;

  IF true = ANY (kind_drops) THEN
    dropped := ARRAY(SELECT i.id FROM unnest(new_ids, keys, kinds) AS i(id, key, kind)
                      WHERE kind_drops[i.kind] AND i.key = ANY (fresh) AND (ids IS NULL OR i.id <> ALL (ids)));
  END IF;
  IF cardinality(ids) = cardinality(new_ids) THEN
    ids := NULL;
  END IF;

  PERFORM pg_notify('posthouse_events', '');
END $$;
