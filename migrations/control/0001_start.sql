-- Control: who the tenants are and where they live, which integrations there are, who may ask. No token, no body.
CREATE SCHEMA IF NOT EXISTS control;   -- there already: its schema_version table is Alembic's

-- One row. `revision` moves with every change that processes keep in memory (integrations, keys, tenants' regions):
-- they look at it twice a second and read again when it moved.
CREATE TABLE control.state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  revision bigint NOT NULL DEFAULT 1
);
INSERT INTO control.state DEFAULT VALUES;

-- Proof that a process holds the right keyring: a MAC of a constant under each version. No key material.
CREATE TABLE control.keyring_checks (
  keyring text NOT NULL,              -- "control" or a region's name
  version integer NOT NULL,           -- 0 is the hashing key
  proof bytea NOT NULL,
  PRIMARY KEY (keyring, version)
);

CREATE TABLE control.tenants (
  id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),   -- the platform's own id
  region text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);

CREATE TABLE control.integrations (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),   -- stands in the URL
  provider text NOT NULL,
  region text NOT NULL,               -- home: where items that match no connection are kept
  client_id text,
  settings jsonb NOT NULL DEFAULT '{}',
  unattributed text NOT NULL DEFAULT 'keep' CHECK (unattributed IN ('keep', 'drop')),
  declared_by text NOT NULL CHECK (declared_by IN ('file', 'api')),
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);

-- Sealed under the control keyring; AAD binds (integration, purpose, id). Newest first is position 0.
CREATE TABLE control.integration_secrets (
  id uuid PRIMARY KEY,
  integration_id uuid NOT NULL REFERENCES control.integrations ON DELETE CASCADE,
  purpose text NOT NULL CHECK (purpose IN ('signing_secrets', 'client_secrets')),
  position smallint NOT NULL CHECK (position >= 0),
  sealed bytea NOT NULL,
  fingerprint bytea NOT NULL,         -- keyed: tells whether a declared secret is already here, and nothing else
  added_at timestamptz NOT NULL,
  UNIQUE (integration_id, purpose, position) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE control.api_keys (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  role text NOT NULL,
  prefix text NOT NULL,               -- the shown beginning, for finding a key; not secret
  hash bytea NOT NULL UNIQUE,         -- keyed
  created_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz
);

-- Where deliveries of an account go: a hint by keyed hash, never the account's id. A stale row costs a look-up.
CREATE TABLE control.account_regions (
  integration_id uuid NOT NULL REFERENCES control.integrations ON DELETE CASCADE,
  account_hash uuid NOT NULL,
  region text NOT NULL,
  PRIMARY KEY (integration_id, account_hash, region)
);

-- Answers to POSTs with an Idempotency-Key, for 24 h. Sealed: an answer may show a key or a secret once.
CREATE TABLE control.idempotency_keys (
  caller uuid NOT NULL,               -- the API key that asked
  key_hash bytea NOT NULL,
  request_hash bytea NOT NULL,
  locked_until timestamptz NOT NULL,  -- the first request is still running until then
  status integer,                     -- null while it runs
  sealed_answer bytea,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (caller, key_hash)
);
CREATE INDEX ON control.idempotency_keys (expires_at);

CREATE FUNCTION control.moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE control.state SET revision = revision + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER moved AFTER INSERT OR UPDATE OR DELETE ON control.integrations FOR EACH STATEMENT EXECUTE FUNCTION control.moved();
CREATE TRIGGER moved AFTER INSERT OR UPDATE OR DELETE ON control.integration_secrets FOR EACH STATEMENT EXECUTE FUNCTION control.moved();
CREATE TRIGGER moved AFTER INSERT OR DELETE OR UPDATE OF name, role, hash, expires_at, revoked_at ON control.api_keys
  FOR EACH STATEMENT EXECUTE FUNCTION control.moved();
