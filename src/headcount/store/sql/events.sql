-- name: add
-- The number grows and is never used again.
INSERT INTO event (at, kind, task_id, agent_id, run, reason, data)
VALUES (:now, :kind, :task_id, :agent_id, :run, :reason, :data)
RETURNING seq;

-- name: since
-- All events behind a cursor, oldest first. `kinds` is null for any, or the kinds between bars.
SELECT * FROM event
 WHERE seq > :cursor AND (:kinds IS NULL OR instr(:kinds, '|' || kind || '|'))
 ORDER BY seq LIMIT :limit;

-- name: since_of_task
-- The events of a task behind a cursor, oldest first.
SELECT * FROM event
 WHERE task_id = :task_id AND seq > :cursor AND (:kinds IS NULL OR instr(:kinds, '|' || kind || '|'))
 ORDER BY seq LIMIT :limit;

-- name: since_of_agent
-- The events of an agent behind a cursor, oldest first; null asks for those of any task.
SELECT * FROM event
 WHERE agent_id = :agent_id AND seq > :cursor AND (:task_id IS NULL OR task_id = :task_id)
   AND (:kinds IS NULL OR instr(:kinds, '|' || kind || '|'))
 ORDER BY seq LIMIT :limit;

-- name: get
-- One event by its number, or no row.
SELECT * FROM event WHERE seq = :seq;

-- name: refusals
-- How often the task was refused an agent, by reason.
SELECT coalesce(reason, '') AS reason, count(*) AS number
  FROM event WHERE kind = 'refused' AND task_id = :task_id GROUP BY reason;

-- name: last
-- The number of the last event, also of one that is deleted; 0 if there was none.
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event';

-- name: open_retention
-- Let events up to a number be deleted, until `close_retention` in the same transaction.
UPDATE retention SET upto = :upto;

-- name: prune
-- Delete the events that are older than a moment and not among the newest `keep`.
DELETE FROM event
 WHERE at < :before AND seq <= (SELECT upto FROM retention);

-- name: close_retention
-- The journal is append-only again.
UPDATE retention SET upto = 0;

-- name: skip
-- Go on at a higher number, so that cursors given out before a rebuild stay behind what is new.
UPDATE sqlite_sequence SET seq = max(seq, :seq) WHERE name = 'event';

-- name: skip_from_none
-- As `skip`, for a journal that never had an event.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'event', :seq WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'event');
