-- name: add
-- The agent works on the task, or nothing is written.
INSERT INTO finding (task_id, agent_id, run, type, severity, message, data, late, at)
VALUES (:task_id, :agent_id, :run, :type, :severity, :message, :data, :late, :now)
RETURNING id;

-- name: page
-- The findings of a task behind a cursor, oldest first; null asks for any.
SELECT * FROM finding
 WHERE task_id = :task_id AND id > :after
   AND (:severity IS NULL OR severity = :severity)
   AND (:type IS NULL OR type = :type)
   AND (:agent_id IS NULL OR agent_id = :agent_id)
   AND (:since IS NULL OR at >= :since)
 ORDER BY id LIMIT :limit;

-- name: recent
-- The last findings of a task, newest first; reads no more than it returns.
SELECT * FROM finding WHERE task_id = :task_id ORDER BY id DESC LIMIT :limit;

-- name: summary
-- How many findings of each severity and type a task has.
SELECT severity, type, count(*) AS number FROM finding WHERE task_id = :task_id GROUP BY severity, type;
