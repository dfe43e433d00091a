-- name: get
-- What is kept of a run, or no row.
SELECT facts, made_at FROM postmortem WHERE agent_id = :agent_id AND run = :run;

-- name: add
-- It is made once, of a run that is over.
INSERT INTO postmortem (agent_id, run, facts, made_at)
SELECT agent_id, n, :facts, :now FROM run WHERE agent_id = :agent_id AND n = :run AND NOT live
    ON CONFLICT DO NOTHING;

-- name: examined
-- Nothing more is to be made of this run.
UPDATE run SET examined = 1 WHERE agent_id = :agent_id AND n = :run AND NOT live;

-- name: due
-- Runs that ended since a moment and whose post-mortem is to be made: those that have their account, and those
-- that ended so long ago that they will have none. The latest first.
SELECT agent_id, n FROM run INDEXED BY run_unexamined
 WHERE NOT live AND NOT examined AND ended_at > :since AND (account IS NOT NULL OR ended_at < :without)
 ORDER BY ended_at DESC LIMIT :limit;

-- name: waiting
-- Whether a run that ended since a moment still waits for its account.
SELECT EXISTS (SELECT 1 FROM run INDEXED BY run_unexamined
                WHERE NOT live AND NOT examined AND ended_at > :since);

-- name: circumstances
-- What the registry knows of a run beyond its row, or no row.
SELECT run.stop_by, run.stop_asked_at, run.exit, agent.policy AS agent_policy, task.policy AS task_policy,
       task.max_live, task.max_agents, task.max_depth, task.project
  FROM run JOIN agent USING (agent_id) JOIN task ON task.task_id = run.task_id
 WHERE run.agent_id = :agent_id AND run.n = :run;

-- name: flags
-- What the watchdog saw on a run, in its order.
SELECT kind, evidence, raised_at, cleared_at, action, acted_at, done_at, reason
  FROM flag WHERE agent_id = :agent_id AND run = :run ORDER BY id;

-- name: live_at
-- How many runs of the machine were live at a moment; reads what ended since then.
SELECT (SELECT count(*) FROM run INDEXED BY run_live WHERE live AND reserved_at <= :at)
     + (SELECT count(*) FROM run INDEXED BY run_over
         WHERE NOT live AND ended_at >= :at AND reserved_at <= :at);

-- name: live_at_of_task
-- How many runs of a task were live at a moment.
SELECT count(*) FROM agent JOIN run USING (agent_id)
 WHERE agent.task_id = :task_id AND run.reserved_at <= :at
   AND (run.ended_at IS NULL OR run.ended_at >= :at);

-- name: agents_at_of_task
-- How many agents a task had had by a moment.
SELECT count(*) FROM agent WHERE task_id = :task_id AND created_at <= :at;
