-- name: add
-- A worktree is on record before it is made; an agent has one, and so has a path.
INSERT INTO worktree (agent_id, repository, path, branch, base, state, made_at)
VALUES (:agent_id, :repository, :path, :branch, :base, :state, :now);

-- name: get
-- The worktree of an agent, or no row.
SELECT rowid AS seq, * FROM worktree WHERE agent_id = :agent_id;

-- name: page
-- Those that are not removed, the newest first, before a number.
SELECT rowid AS seq, * FROM worktree
 WHERE state <> 'removed' AND rowid < :before
 ORDER BY rowid DESC LIMIT :limit;

-- name: page_all
-- All of them, the newest first, before a number.
SELECT rowid AS seq, * FROM worktree WHERE rowid < :before ORDER BY rowid DESC LIMIT :limit;

-- name: unsettled
-- Those that are being made or removed, by somebody who lives or who died; costs what is unsettled.
SELECT rowid AS seq, * FROM worktree INDEXED BY worktree_unsettled
 WHERE state IN ('making', 'removing')
 ORDER BY agent_id;

-- name: move
-- Compare-and-set: of two who change a worktree at once, one changes nothing.
UPDATE worktree
   SET state = :to, removed_at = CASE WHEN :to = 'removed' THEN :now END
 WHERE agent_id = :agent_id AND state = :from_;

-- name: claim
-- Compare-and-set: a worktree is to be removed, and no run of its agent is live.
UPDATE worktree
   SET state = 'removing', tip = :tip
 WHERE agent_id = :agent_id AND state = 'there'
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.agent_id = worktree.agent_id AND run.live);

-- name: number_trash
-- Give out the number of the next ref for what would be lost; none is given out twice.
UPDATE worktree SET trashes = trashes + 1 WHERE agent_id = :agent_id RETURNING trashes;

-- name: set_trash
-- Record where what would be lost is kept, or that it is back.
UPDATE worktree SET trash_ref = :trash_ref WHERE agent_id = :agent_id;

-- name: set_result
-- Record what was seen of a worktree after a run; an earlier run's look never replaces a later one's.
UPDATE worktree SET result = :result
 WHERE agent_id = :agent_id AND coalesce(json_extract(result, '$.run'), 0) <= :run;
