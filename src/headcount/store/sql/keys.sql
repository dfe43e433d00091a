-- name: get
-- What was answered to this key, or no row.
SELECT request_hash, agent_id, run FROM idempotency_key WHERE scope = :scope AND key = :key;

-- name: put
-- A key is answered once, or nothing is written.
INSERT INTO idempotency_key (scope, key, request_hash, agent_id, run, at)
VALUES (:scope, :key, :request_hash, :agent_id, :run, :now);
