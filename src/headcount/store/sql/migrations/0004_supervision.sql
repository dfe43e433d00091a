-- What the watchdog goes by and what it found, who is told of what, and the daemon's sign of life.

ALTER TABLE task ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';          -- JSON: domain.policy, what differs
ALTER TABLE agent ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';         -- JSON: the same, before the task's

ALTER TABLE run ADD COLUMN examined INTEGER NOT NULL DEFAULT 0 CHECK (examined IN (0, 1));

-- Runs that are over and whose post-mortem is still to be made.
CREATE INDEX run_unexamined ON run (ended_at) WHERE NOT live AND NOT examined;

-- What is kept of a run that is over; in a table of its own, for it is large and seldom read.
CREATE TABLE postmortem (
    agent_id TEXT NOT NULL,
    run      INTEGER NOT NULL,
    facts    TEXT NOT NULL,                              -- JSON
    made_at  REAL NOT NULL,
    PRIMARY KEY (agent_id, run),
    FOREIGN KEY (agent_id, run) REFERENCES run (agent_id, n) ON DELETE CASCADE
) STRICT;

-- What the watchdog sees on a run, from when it is seen until it is no longer so.
CREATE TABLE flag (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    agent_id   TEXT NOT NULL,
    run        INTEGER NOT NULL,
    kind       TEXT NOT NULL,                            -- domain.watchdog.Signal
    evidence   TEXT NOT NULL,                            -- JSON
    raised_at  REAL NOT NULL,
    cleared_at REAL,
    action     TEXT NOT NULL CHECK (action IN ('flag', 'tell_agent', 'tell_parent', 'stop', 'restart')),
    acted_at   REAL,                                     -- on record before the act
    done_at    REAL,                                     -- the act is through
    reason     TEXT,                                     -- what came of it, where it failed or was left undone
    FOREIGN KEY (agent_id, run) REFERENCES run (agent_id, n) ON DELETE CASCADE,
    CHECK (done_at IS NULL OR acted_at IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX flag_open ON flag (agent_id, run, kind) WHERE cleared_at IS NULL;
CREATE INDEX flag_by_run ON flag (agent_id, run);
CREATE INDEX flag_undone ON flag (id) WHERE acted_at IS NOT NULL AND done_at IS NULL;

-- The daemon's sign of life.
CREATE TABLE heartbeat (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    pid        INTEGER NOT NULL,
    boot_id    TEXT NOT NULL,
    at         REAL NOT NULL,
    monotonic  REAL NOT NULL,                            -- seconds in boot_id that stop while the machine sleeps
    headcounts INTEGER NOT NULL,
    longest_s  REAL NOT NULL                             -- the longest headcount so far
) STRICT;

-- Events that are to be told to somebody outside: each until it was delivered or there is no hope.
CREATE TABLE notice (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id INTEGER NOT NULL,                           -- event.seq; the notice may outlive it
    hook     TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('queued', 'delivered', 'dead')),
    tries    INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_at  REAL NOT NULL,
    reason   TEXT,
    UNIQUE (hook, event_id)
) STRICT;

CREATE INDEX notice_queued ON notice (hook, next_at) WHERE state = 'queued';

-- Up to which event each hook has its notices.
CREATE TABLE notice_cursor (
    hook TEXT NOT NULL PRIMARY KEY,
    seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
