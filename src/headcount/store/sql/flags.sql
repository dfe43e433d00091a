-- name: watched
-- The runs that the watchdog looks at, with what they are held to; costs what is live, never history.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options,
       agent.policy AS agent_policy, task.policy AS task_policy
  FROM run INDEXED BY run_live CROSS JOIN agent USING (agent_id) CROSS JOIN task ON task.task_id = run.task_id
 WHERE run.live AND run.state = 'running' AND run.form = 'headless'
 ORDER BY agent.seq;

-- name: policies
-- What an agent and its task were given as policy, or no row.
SELECT agent.policy AS agent_policy, task.policy AS task_policy
  FROM agent JOIN task USING (task_id)
 WHERE agent.agent_id = :agent_id;

-- name: raise
-- One open flag for each kind and run; no row back: it is raised already.
INSERT INTO flag (agent_id, run, kind, evidence, raised_at, action)
VALUES (:agent_id, :run, :kind, :evidence, :now, :action)
    ON CONFLICT (agent_id, run, kind) WHERE cleared_at IS NULL DO NOTHING
RETURNING id;

-- name: clear
-- Compare-and-set: a flag is cleared once.
UPDATE flag SET cleared_at = :now WHERE id = :id AND cleared_at IS NULL;

-- name: open
-- The open flags, the oldest first; of one agent, or of all.
SELECT flag.*, run.task_id, run.live
  FROM flag INDEXED BY flag_open CROSS JOIN run ON run.agent_id = flag.agent_id AND run.n = flag.run
 WHERE flag.cleared_at IS NULL AND (:agent_id IS NULL OR flag.agent_id = :agent_id)
 ORDER BY flag.id;

-- name: of_agent
-- The flags of an agent, the latest first.
SELECT flag.*, run.task_id, run.live
  FROM flag JOIN run ON run.agent_id = flag.agent_id AND run.n = flag.run
 WHERE flag.agent_id = :agent_id
 ORDER BY flag.id DESC LIMIT :limit;

-- name: act
-- Compare-and-set: one who acts on an open flag, before it acts.
UPDATE flag SET acted_at = :now WHERE id = :id AND cleared_at IS NULL AND acted_at IS NULL;

-- name: finish
-- Compare-and-set: what came of an act is recorded once.
UPDATE flag SET acted_at = coalesce(acted_at, :now), done_at = :now, reason = :reason
 WHERE id = :id AND done_at IS NULL;

-- name: owed
-- The restarts that were begun and are not through.
SELECT flag.*, run.task_id, run.live
  FROM flag INDEXED BY flag_undone
       CROSS JOIN run ON run.agent_id = flag.agent_id AND run.n = flag.run
 WHERE flag.acted_at IS NOT NULL AND flag.done_at IS NULL AND flag.action = 'restart'
 ORDER BY flag.id;

-- name: restarted
-- When an agent was restarted since a moment.
SELECT done_at FROM flag
 WHERE agent_id = :agent_id AND action = 'restart' AND done_at > :since AND reason IS NULL;

-- name: forgo
-- Intent: the restarts that are owed to an agent, or to all, are not made.
UPDATE flag SET done_at = :now, reason = :reason
 WHERE acted_at IS NOT NULL AND done_at IS NULL AND action = 'restart'
   AND (:agent_id IS NULL OR agent_id = :agent_id);
