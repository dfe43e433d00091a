-- name: add
-- A task's id is new, or nothing is written.
INSERT INTO task (task_id, description, priority, project, state, context,
                  max_live, max_agents, max_depth, spawn_rules, created_at, closed_at, isolation, setup,
                  policy)
VALUES (:task_id, :description, :priority, :project, :state, :context,
        :max_live, :max_agents, :max_depth, :spawn_rules, :created_at, :closed_at, :isolation, :setup,
        :policy);

-- name: get
-- One task by its id, or no row.
SELECT * FROM task WHERE task_id = :task_id;

-- name: page
-- Newest first, archived ones left out ('~' sorts behind every id).
SELECT * FROM task
 WHERE state <> 'archived' AND task_id < coalesce(:before, '~')
 ORDER BY task_id DESC LIMIT :limit;

-- name: page_of_state
-- Those of one state, newest first; reads no more than it returns.
SELECT * FROM task
 WHERE state = :state AND task_id < coalesce(:before, '~')
 ORDER BY task_id DESC LIMIT :limit;

-- name: move
-- Compare-and-set: one of two that move the same task at once gets a row count of 0. The time of
-- closing is set when the task closes, and cleared when it opens again.
UPDATE task
   SET state = :to,
       closed_at = CASE WHEN :to IN ('open', 'paused') THEN NULL ELSE coalesce(closed_at, :now) END
 WHERE task_id = :task_id AND state IN (:from_1, :from_2, :from_3, :from_4);
