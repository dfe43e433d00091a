-- name: cursor
-- Up to which event a hook has its notices, or no row.
SELECT seq FROM notice_cursor WHERE hook = :hook;

-- name: move
-- A hook has its notices up to this event.
INSERT INTO notice_cursor (hook, seq) VALUES (:hook, :seq)
    ON CONFLICT (hook) DO UPDATE SET seq = excluded.seq;

-- name: hooks
-- The names of all hooks that have a cursor.
SELECT hook FROM notice_cursor;

-- name: drop
-- Forget how far a hook had got.
DELETE FROM notice_cursor WHERE hook = :hook;

-- name: abandon
-- What was still to be told to a hook is given up.
UPDATE notice SET state = 'dead', next_at = :now, reason = :reason WHERE hook = :hook AND state = 'queued';

-- name: add
-- One notice for an event and a hook, however often it is asked for.
INSERT INTO notice (event_id, hook, state, next_at) VALUES (:event_id, :hook, 'queued', :now)
    ON CONFLICT DO NOTHING;

-- name: due
-- What is to be told to a hook now, longest due first. What is due only after `far` was written by a clock that
-- has been set back since.
SELECT * FROM notice
 WHERE state = 'queued' AND hook = :hook AND (next_at <= :now OR next_at > :far)
 ORDER BY next_at, id LIMIT :limit;

-- name: queued
-- Whether something is still to be told to a hook.
SELECT EXISTS (SELECT 1 FROM notice WHERE state = 'queued' AND hook = :hook);

-- name: tried
-- Compare-and-set: what came of a try is recorded once.
UPDATE notice SET state = :state, tries = tries + 1, next_at = :next_at, reason = :reason
 WHERE id = :id AND state = 'queued' AND tries = :tries;

-- name: counts
-- How many notices of each hook are in each state.
SELECT hook, state, count(*) AS number FROM notice GROUP BY hook, state;

-- name: last_failure
-- Why a hook was last not told, or no row.
SELECT reason FROM notice WHERE hook = :hook AND reason IS NOT NULL ORDER BY next_at DESC LIMIT 1;

-- name: forget
-- Delete what was settled before a moment.
DELETE FROM notice WHERE state <> 'queued' AND next_at < :before;
