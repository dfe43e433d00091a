-- name: messages_queued
-- How many messages have not reached their agent yet; reads those alone.
SELECT count(*) FROM message INDEXED BY message_queued WHERE state = 'queued';

-- name: flags_open
-- How many flags stand, by kind; reads those alone.
SELECT kind, count(*) AS number FROM flag INDEXED BY flag_open WHERE cleared_at IS NULL GROUP BY kind;

-- name: tasks_paused
-- How many tasks are paused; reads those alone.
SELECT count(*) FROM task INDEXED BY task_by_state WHERE state = 'paused';
