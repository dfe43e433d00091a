-- name: add
-- The run exists, or nothing is written.
INSERT INTO report (task_id, agent_id, run, status, message, progress, late, at)
VALUES (:task_id, :agent_id, :run, :status, :message, :progress, :late, :now)
RETURNING id;

-- name: latest
-- The last report of an agent's latest reporting run, or no row.
SELECT * FROM report WHERE agent_id = :agent_id ORDER BY run DESC, id DESC LIMIT 1;

-- name: latest_of_run
-- The last report of one run, or no row; one step in an index.
SELECT * FROM report WHERE agent_id = :agent_id AND run = :run ORDER BY id DESC LIMIT 1;

-- name: recent
-- The last reports of a task, newest first; reads no more than it returns.
SELECT * FROM report WHERE task_id = :task_id ORDER BY id DESC LIMIT :limit;

-- name: page
-- All reports behind a cursor, oldest first.
SELECT * FROM report WHERE id > :after ORDER BY id LIMIT :limit;

-- name: page_of_task
-- The reports of a task behind a cursor, oldest first.
SELECT * FROM report WHERE task_id = :task_id AND id > :after ORDER BY id LIMIT :limit;

-- name: page_of_agent
-- The reports of an agent behind a cursor, oldest first.
SELECT * FROM report WHERE agent_id = :agent_id AND id > :after ORDER BY id LIMIT :limit;
