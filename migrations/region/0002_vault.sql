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

CREATE TABLE gateway.staged_tokens (
  session_id uuid NOT NULL REFERENCES gateway.connect_sessions ON DELETE CASCADE,
  access_profile text NOT NULL,
  tenant_id text NOT NULL,
  data_key_version integer NOT NULL,
  sealed bytea NOT NULL,              -- the whole token set as JSON; purpose `staged`
  answered_at timestamptz NOT NULL,
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
