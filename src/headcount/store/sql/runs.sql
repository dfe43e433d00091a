-- INDEXED BY and CROSS JOIN (which SQLite never reorders) stand where the planner must not begin with history.

-- name: add_agent
-- An agent's id is new, or nothing is written.
INSERT INTO agent (agent_id, task_id, role, parent_id, depth, harness, model, effort,
                   work_hash, command, cwd, created_at, prompt, options, resume_on_crash,
                   isolation, policy)
VALUES (:agent_id, :task_id, :role, :parent, :depth, :harness, :model, :effort,
        :work_hash, :command, :cwd, :reserved_at, :prompt, :options, :resume_on_crash,
        :isolation, :policy);

-- name: add
-- Take the agent's, the (task, role) and the (task, work) slot, or fail on a constraint.
INSERT INTO run (agent_id, n, task_id, state, role_slot, work_slot, token_hash, path,
                 deployer_pid, deployer_ticks, deployer_boot, pidns, reserved_at, reserved_boottime,
                 session_id, resumes, why, form)
VALUES (:agent_id, :n, :task_id, :state, :role_slot, :work_slot, :token_hash, :path,
        :deployer_pid, :deployer_ticks, :deployer_boot, :pidns, :reserved_at, :reserved_boottime,
        :session_id, :resumes, :why, :form);

-- name: undo_agent
-- Take back an agent whose first run was refused.
DELETE FROM agent
 WHERE agent_id = :agent_id AND NOT EXISTS (SELECT 1 FROM run WHERE run.agent_id = agent.agent_id);

-- name: live
-- All live rows of the machine; costs what is live, never history.
SELECT run.*, agent.role, agent.harness, agent.options
  FROM run INDEXED BY run_live CROSS JOIN agent USING (agent_id)
 WHERE run.live
 ORDER BY agent.seq;

-- name: live_of_task
-- The live rows of one task, oldest agent first.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run INDEXED BY run_live_role CROSS JOIN agent USING (agent_id)
 WHERE run.live AND run.task_id = :task_id
 ORDER BY agent.seq;

-- name: get
-- One run by its key, or no row.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run JOIN agent USING (agent_id)
 WHERE run.agent_id = :agent_id AND run.n = :n;

-- name: latest
-- The latest run of an agent, or no row.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run JOIN agent USING (agent_id)
 WHERE run.agent_id = :agent_id
 ORDER BY run.n DESC LIMIT 1;

-- name: by_token
-- The run whose token this is; the hash is unique by constraint.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run JOIN agent USING (agent_id)
 WHERE run.token_hash = :token_hash;

-- name: page_live
-- The live runs of the machine, newest agent first; costs what is live.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run INDEXED BY run_live CROSS JOIN agent USING (agent_id)
 WHERE run.live
   AND agent.seq < CASE WHEN :after IS NULL THEN 9223372036854775807
                        ELSE (SELECT seq FROM agent WHERE agent_id = :after) END
 ORDER BY agent.seq DESC LIMIT :limit;

-- name: page_live_of_task
-- The live runs of one task, newest agent first; costs what is live.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run INDEXED BY run_live_role CROSS JOIN agent USING (agent_id)
 WHERE run.live AND run.task_id = :task_id
   AND agent.seq < CASE WHEN :after IS NULL THEN 9223372036854775807
                        ELSE (SELECT seq FROM agent WHERE agent_id = :after) END
 ORDER BY agent.seq DESC LIMIT :limit;

-- name: page_all
-- The latest run of each agent, newest agent first; costs what it returns.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM agent JOIN run USING (agent_id)
 WHERE run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
   AND agent.seq < CASE WHEN :after IS NULL THEN 9223372036854775807
                        ELSE (SELECT seq FROM agent WHERE agent_id = :after) END
 ORDER BY agent.seq DESC LIMIT :limit;

-- name: page_all_of_task
-- The latest run of each agent of one task, newest agent first; costs what it returns.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM agent JOIN run USING (agent_id)
 WHERE agent.task_id = :task_id
   AND run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
   AND agent.seq < CASE WHEN :after IS NULL THEN 9223372036854775807
                        ELSE (SELECT seq FROM agent WHERE agent_id = :after) END
 ORDER BY agent.seq DESC LIMIT :limit;

-- name: keys
-- The name of every run, over or not; reads an index only.
SELECT agent_id, n FROM run;

-- name: children
-- The latest run of each agent that this one deployed, oldest first.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM agent JOIN run USING (agent_id)
 WHERE agent.parent_id = :agent_id
   AND run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
 ORDER BY agent.seq;

-- name: holders
-- What every live row of the machine holds; costs what is live.
SELECT run.agent_id, run.task_id, agent.role, agent.work_hash
  FROM run INDEXED BY run_live CROSS JOIN agent USING (agent_id)
 WHERE run.live
 ORDER BY agent.seq;

-- name: agents_of_task
-- How many agents a task has had over its life; reads an index only.
SELECT count(*) FROM agent WHERE task_id = :task_id;

-- name: agent
-- What an agent was deployed as, or no row.
SELECT * FROM agent WHERE agent_id = :agent_id;

-- name: all_of_agent
-- The runs of an agent, in their order.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run JOIN agent USING (agent_id)
 WHERE run.agent_id = :agent_id
 ORDER BY run.n;

-- name: live_to_resume
-- The live rows of agents that are to be resumed after a crash; costs what is live.
SELECT run.*, agent.role, agent.harness, agent.options
  FROM run INDEXED BY run_live CROSS JOIN agent USING (agent_id)
 WHERE run.live AND agent.resume_on_crash > 0;

-- name: crashed_since
-- The latest runs that ended since a moment, unasked, of agents that may still be resumed after a crash and
-- whose task is open; reads what ended since then.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run INDEXED BY run_over CROSS JOIN agent USING (agent_id)
 WHERE NOT run.live AND run.ended_at > :since AND run.stop_reason IS NULL AND agent.resume_on_crash > 0
   AND (SELECT state FROM task WHERE task.task_id = agent.task_id) = 'open'
   AND run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
   AND agent.resume_on_crash >
       (SELECT count(*) FROM run AS other WHERE other.agent_id = agent.agent_id AND other.why = 'crash')
 ORDER BY run.ended_at LIMIT :limit;

-- name: last_stopped_for
-- The agents of a task whose latest run was stopped for a reason, oldest agent first.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM agent JOIN run USING (agent_id)
 WHERE agent.task_id = :task_id AND NOT run.live AND run.stop_reason = :reason
   AND run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
 ORDER BY agent.seq;

-- name: resumed_after_crash
-- How often an agent was resumed after a crash.
SELECT count(*) FROM run WHERE agent_id = :agent_id AND why = 'crash';

-- name: unaccounted
-- Runs that are over and whose account is still to be made, the latest first; reads no others.
SELECT agent_id, n FROM run INDEXED BY run_unaccounted
 WHERE NOT live AND account IS NULL
 ORDER BY ended_at DESC LIMIT :limit;

-- name: set_account
-- An account is made once, of a run that is over. The program knows best which conversation it was.
UPDATE run SET account = :account, session_id = coalesce(:session_id, session_id)
 WHERE agent_id = :agent_id AND n = :n AND NOT live AND account IS NULL;

-- name: know_session
-- The conversation of a run becomes known once.
UPDATE run SET session_id = :session_id
 WHERE agent_id = :agent_id AND n = :n AND session_id IS NULL;

-- name: used
-- What the runs of a task used, as far as it is known; sum() of nothing but unknown is unknown.
SELECT count(*) AS runs, coalesce(sum(account IS NULL), 0) AS unaccounted,
       sum(json_extract(account, '$.input')) AS input, sum(json_extract(account, '$.output')) AS output,
       sum(json_extract(account, '$.cached')) AS cached,
       sum(json_extract(account, '$.reasoning')) AS reasoning,
       sum(json_extract(account, '$.cost_usd')) AS cost_usd,
       coalesce(sum(json_extract(account, '$.cost_usd') IS NULL
                    AND coalesce(json_extract(account, '$.model', '$.input', '$.output'), '[]')
                        NOT IN ('[]', '[null,null,null]')), 0) AS cost_unknown
  FROM agent JOIN run USING (agent_id)
 WHERE agent.task_id = :task_id;

-- name: recent_children
-- How many runs an agent's children were given since a moment of this boot.
SELECT count(*)
  FROM agent JOIN run USING (agent_id)
 WHERE agent.parent_id = :parent AND run.deployer_boot = :boot_id AND run.reserved_boottime > :since;

-- name: confirm
-- Compare-and-set: reserved becomes running, with the identities that the start record gave.
UPDATE run
   SET state = :to, started_at = :started_at,
       runner_pid = :runner_pid, runner_ticks = :runner_ticks, runner_boot = :runner_boot,
       process_pid = :process_pid, process_ticks = :process_ticks, process_boot = :process_boot
 WHERE agent_id = :agent_id AND n = :n AND state IN (:from_1, :from_2, :from_3);

-- name: correct
-- Compare-and-set: a live run's identities are replaced only if its runner is still the one that was read.
UPDATE run
   SET runner_pid = :runner_pid, runner_ticks = :runner_ticks, runner_boot = :runner_boot,
       process_pid = :process_pid, process_ticks = :process_ticks, process_boot = :process_boot
 WHERE agent_id = :agent_id AND n = :n AND live
   AND runner_pid = :was_pid AND runner_ticks = :was_ticks AND runner_boot = :was_boot;

-- name: stop_asked
-- Compare-and-set: the first who asks is recorded.
UPDATE run
   SET state = :to, stop_reason = :reason, stop_by = :by, stop_asked_at = :now
 WHERE agent_id = :agent_id AND n = :n AND state IN (:from_1, :from_2, :from_3);

-- name: end
-- Compare-and-set: a run ends once, and what ended it is written with it.
UPDATE run
   SET state = :to, outcome = :outcome, ended_at = :ended_at,
       started_at = coalesce(started_at, :started_at),
       exit_code = :exit_code, signal = :signal, exit = :exit, reason = :reason, ending = :ending,
       survivors = :survivors, result = :result, usage = :usage
 WHERE agent_id = :agent_id AND n = :n AND state IN (:from_1, :from_2, :from_3);

-- name: lost
-- Compare-and-set: nothing of the run is left and nobody knows how it ended.
UPDATE run
   SET state = :to, ended_at = :now, reason = :reason, survivors = :survivors
 WHERE agent_id = :agent_id AND n = :n AND state IN (:from_1, :from_2, :from_3);

-- name: view_failed
-- Count one more death of the run's view.
UPDATE run SET view_failures = view_failures + 1
 WHERE agent_id = :agent_id AND n = :n
RETURNING view_failures;

-- name: counts
-- How many agents of a task are in each state, by their latest run.
SELECT run.state, run.outcome, count(*) AS number
  FROM agent JOIN run USING (agent_id)
 WHERE agent.task_id = :task_id
   AND run.n = (SELECT max(n) FROM run AS other WHERE other.agent_id = agent.agent_id)
 GROUP BY run.state, run.outcome;

-- name: ended_before
-- Runs that were over before a moment, longest over first; reads no more than it returns.
SELECT run.*, agent.role, agent.parent_id, agent.depth, agent.harness, agent.options
  FROM run INDEXED BY run_over CROSS JOIN agent USING (agent_id)
 WHERE NOT run.live AND run.ended_at < :before
 ORDER BY run.ended_at LIMIT :limit;

-- name: forget
-- Delete one run that is over, with its reports. A live one is not touched; neither is the latest run
-- of an agent that has others, because its number fences them.
DELETE FROM run
 WHERE agent_id = :agent_id AND n = :n AND NOT live
   AND (n < (SELECT max(n) FROM run AS other WHERE other.agent_id = :agent_id)
        OR (SELECT count(*) FROM run AS other WHERE other.agent_id = :agent_id) = 1);

-- name: empty_agent
-- Keep an agent without runs as a name only: it still counts against its task's limit.
UPDATE agent SET prompt = NULL, command = '[]'
 WHERE agent_id = :agent_id AND NOT EXISTS (SELECT 1 FROM run WHERE run.agent_id = agent.agent_id);

-- name: forget_worktree
-- Forget the worktree of an agent without runs, if it is gone and nothing of it is kept.
DELETE FROM worktree
 WHERE agent_id = :agent_id AND state = 'removed' AND trash_ref IS NULL
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.agent_id = worktree.agent_id);

-- name: forget_agent
-- Delete an agent of a task that takes no more agents, if no run, child, worktree or finding refers to it.
DELETE FROM agent
 WHERE agent_id = :agent_id
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.agent_id = agent.agent_id)
   AND NOT EXISTS (SELECT 1 FROM agent AS child WHERE child.parent_id = agent.agent_id)
   AND NOT EXISTS (SELECT 1 FROM worktree WHERE worktree.agent_id = agent.agent_id)
   AND NOT EXISTS (SELECT 1 FROM finding WHERE finding.agent_id = agent.agent_id)
   AND EXISTS (SELECT 1 FROM task WHERE task.task_id = agent.task_id AND task.state IN ('closed', 'archived'))
RETURNING parent_id;
