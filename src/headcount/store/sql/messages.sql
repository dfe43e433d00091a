-- name: add
-- A message is on record before anything is done with it.
INSERT INTO message (task_id, agent_id, sender, text, state, way, at)
VALUES (:task_id, :agent_id, :sender, :text, 'queued', :way, :now)
RETURNING id;

-- name: get
-- One message, or no row.
SELECT * FROM message WHERE id = :id;

-- name: queued
-- What waits for an agent, the earliest first; reads nothing that was delivered.
SELECT * FROM message INDEXED BY message_queued
 WHERE agent_id = :agent_id AND state = 'queued'
 ORDER BY id LIMIT :limit;

-- name: waiting
-- The agents for which something waits that is to reach them by a resume or in their work; no resume reaches
-- an agent of a paused task.
SELECT DISTINCT agent_id FROM message INDEXED BY message_queued
 WHERE state = 'queued'
   AND (way = 'steer' OR way = 'resume'
        AND (SELECT state FROM task WHERE task.task_id = message.task_id) <> 'paused');

-- name: of_agent
-- The messages for an agent, the latest first, before a number.
SELECT * FROM message WHERE agent_id = :agent_id AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: route
-- Compare-and-set: a waiting message is given a way, and the run that it is to reach.
UPDATE message SET way = :way, run = :run WHERE id = :id AND state = 'queued';

-- name: deliver
-- Compare-and-set: a message is delivered once.
UPDATE message SET state = 'delivered', way = :way, run = :run, delivered_at = :now
 WHERE id = :id AND state = 'queued';

-- name: begun
-- What was in the prompt of a run has reached its agent when that is known to run.
UPDATE message SET state = 'delivered', delivered_at = :now
 WHERE agent_id = :agent_id AND run = :run AND state = 'queued' AND way = 'resume'
RETURNING id;

-- name: release
-- What was in the prompt of a run that never began waits again, even if that seemed to have begun; after a
-- stop it resumes nobody.
UPDATE message SET state = 'queued', delivered_at = NULL, run = NULL,
                   way = CASE WHEN :stopped THEN NULL ELSE way END
 WHERE agent_id = :agent_id AND run = :run AND state IN ('queued', 'delivered') AND way = 'resume';

-- name: fail
-- Compare-and-set: a message that will not reach its agent says why.
UPDATE message SET state = 'failed', reason = :reason WHERE id = :id AND state = 'queued';
