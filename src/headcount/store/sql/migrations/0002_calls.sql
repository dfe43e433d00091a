-- What a call wrote: the call that is sent again, because the daemon died before it answered, is answered
-- and not carried out again. Deploys have idempotency_key.

CREATE TABLE call (
    caller       TEXT NOT NULL,                          -- an agent's id, or person
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    wrote        TEXT NOT NULL,                          -- JSON: what the answer is made of
    at           REAL NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_by_age ON call (at);
