-- name: get
-- What the call with this key wrote, or no row.
SELECT request_hash, wrote FROM call WHERE caller = :caller AND key = :key;

-- name: put
-- A call writes once, or nothing is written.
INSERT INTO call (caller, key, request_hash, wrote, at) VALUES (:caller, :key, :request_hash, :wrote, :now);

-- name: prune
-- Forget the calls that were made before a moment: nobody sends them again.
DELETE FROM call WHERE at < :before;
