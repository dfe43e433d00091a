-- How an agent works, the conversation that its runs are, what each used, where it works, what it was told.

ALTER TABLE agent ADD COLUMN options TEXT NOT NULL DEFAULT '{}';        -- JSON: domain.options, what differs
ALTER TABLE agent ADD COLUMN isolation TEXT NOT NULL DEFAULT 'shared'
    CHECK (isolation IN ('shared', 'worktree'));
ALTER TABLE task ADD COLUMN isolation TEXT NOT NULL DEFAULT 'shared'    -- of its agents, unless they say
    CHECK (isolation IN ('shared', 'worktree'));
ALTER TABLE task ADD COLUMN setup TEXT NOT NULL DEFAULT '[]';           -- JSON: argv, run in a new worktree
ALTER TABLE agent ADD COLUMN resume_on_crash INTEGER NOT NULL DEFAULT 0 CHECK (resume_on_crash >= 0);

ALTER TABLE run ADD COLUMN session_id TEXT;                             -- the program's own conversation
ALTER TABLE run ADD COLUMN resumes INTEGER;                             -- the run whose conversation this one continues
ALTER TABLE run ADD COLUMN form TEXT NOT NULL DEFAULT 'headless'
    CHECK (form IN ('headless', 'interactive'));
ALTER TABLE run ADD COLUMN why TEXT NOT NULL DEFAULT 'deploy'           -- what made this run begin
    CHECK (why IN ('deploy', 'resume', 'crash', 'message'));
ALTER TABLE run ADD COLUMN ending TEXT;                                 -- domain.account.Ending, with the outcome
ALTER TABLE run ADD COLUMN account TEXT;                                -- JSON: domain.account, once it is made

-- Runs that are over and whose account is still to be made.
CREATE INDEX run_unaccounted ON run (ended_at) WHERE NOT live AND account IS NULL;

-- What an agent was told after its deploy. It belongs to the agent, whatever run it reaches.
CREATE TABLE message (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id      TEXT NOT NULL,
    agent_id     TEXT NOT NULL,                          -- whom it is for
    sender       TEXT REFERENCES agent (agent_id),       -- null: a person
    text         TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('queued', 'delivered', 'failed')),
    way          TEXT CHECK (way IN ('steer', 'report', 'resume')),  -- how it reached, or is to reach, the agent
    run          INTEGER,                                -- the run that it reached
    reason       TEXT,
    at           REAL NOT NULL,
    delivered_at REAL,
    FOREIGN KEY (task_id, agent_id) REFERENCES agent (task_id, agent_id) ON DELETE CASCADE,
    CHECK ((delivered_at IS NOT NULL) = (state = 'delivered')),
    CHECK (state <> 'delivered' OR (way IS NOT NULL AND run IS NOT NULL))
) STRICT;

CREATE INDEX message_queued ON message (agent_id, id) WHERE state = 'queued';
CREATE INDEX message_by_agent ON message (agent_id, id);

-- The git worktrees that were made for agents: recorded before they are made, until they are gone.
CREATE TABLE worktree (
    agent_id   TEXT NOT NULL PRIMARY KEY REFERENCES agent (agent_id),
    repository TEXT NOT NULL,                            -- the common git directory
    path       TEXT NOT NULL UNIQUE,
    branch     TEXT NOT NULL,
    base       TEXT NOT NULL,                            -- the commit that it began at
    state      TEXT NOT NULL CHECK (state IN ('making', 'there', 'removing', 'removed')),
    tip        TEXT,                                     -- the commit that it was at when it was removed
    trash_ref  TEXT,                                     -- where what it had that nothing else has was kept
    trashes    INTEGER NOT NULL DEFAULT 0,               -- how many such refs were made
    result     TEXT,                                     -- JSON: commits, diff, dirty files at the end of a run
    made_at    REAL NOT NULL,
    removed_at REAL,
    CHECK ((removed_at IS NOT NULL) = (state = 'removed'))
) STRICT;

CREATE INDEX worktree_there ON worktree (agent_id) WHERE state <> 'removed';
CREATE INDEX worktree_unsettled ON worktree (agent_id) WHERE state IN ('making', 'removing');
