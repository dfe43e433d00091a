-- The registry. Rules that must hold whatever the code does are constraints, unique indexes and
-- triggers here. Counts are never stored. Times are seconds since the epoch unless the name says otherwise.

CREATE TABLE task (
    task_id     TEXT NOT NULL PRIMARY KEY,      -- sorts by time of creation
    description TEXT NOT NULL,
    priority    TEXT NOT NULL,
    project     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('open', 'paused', 'closed', 'archived')),
    context     TEXT NOT NULL,                  -- JSON
    max_live    INTEGER NOT NULL,
    max_agents  INTEGER NOT NULL,
    max_depth   INTEGER NOT NULL,
    spawn_rules TEXT,                           -- JSON: role -> roles that it may deploy
    created_at  REAL NOT NULL,
    closed_at   REAL,
    CHECK ((closed_at IS NULL) = (state IN ('open', 'paused')))
) STRICT;

CREATE INDEX task_by_state ON task (state, task_id);

CREATE TABLE agent (
    seq        INTEGER PRIMARY KEY,             -- order of creation
    agent_id   TEXT NOT NULL UNIQUE,
    task_id    TEXT NOT NULL REFERENCES task,
    role       TEXT NOT NULL,
    parent_id  TEXT REFERENCES agent (agent_id),
    depth      INTEGER NOT NULL CHECK (depth >= 1 AND (parent_id IS NULL OR depth > 1)),
    harness    TEXT NOT NULL,
    model      TEXT,
    effort     TEXT,
    work_hash  TEXT,
    command    TEXT NOT NULL,                   -- JSON: argv
    cwd        TEXT NOT NULL,
    created_at REAL NOT NULL,
    prompt     TEXT,                            -- last: it is large and seldom read
    UNIQUE (task_id, agent_id)
) STRICT;

CREATE INDEX agent_by_task ON agent (task_id);
CREATE INDEX agent_by_parent ON agent (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE run (
    agent_id          TEXT NOT NULL,
    n                 INTEGER NOT NULL CHECK (n >= 1),   -- the fencing token
    task_id           TEXT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('reserved', 'running', 'stopping', 'ended', 'lost')),
    live              INTEGER NOT NULL
                      GENERATED ALWAYS AS (state IN ('reserved', 'running', 'stopping')) VIRTUAL,
    outcome           TEXT CHECK (outcome IN
                      ('completed', 'failed', 'stopped', 'timed_out', 'over_budget', 'start_failed')),
    role_slot         TEXT,                              -- the role, or null for a double that was asked for
    work_slot         TEXT,                              -- the work's hash, or null likewise
    token_hash        TEXT,
    path              TEXT NOT NULL,
    deployer_pid      INTEGER NOT NULL,
    deployer_ticks    INTEGER NOT NULL,
    deployer_boot     TEXT NOT NULL,
    pidns             TEXT NOT NULL,
    runner_pid        INTEGER,
    runner_ticks      INTEGER,
    runner_boot       TEXT,
    process_pid       INTEGER,
    process_ticks     INTEGER,
    process_boot      TEXT,
    reserved_at       REAL NOT NULL,
    reserved_boottime REAL NOT NULL,                     -- seconds of CLOCK_BOOTTIME in deployer_boot
    started_at        REAL,
    ended_at          REAL,
    exit_code         INTEGER,
    signal            INTEGER,
    reason            TEXT,
    stop_reason       TEXT,
    stop_by           TEXT,
    stop_asked_at     REAL,
    survivors         TEXT NOT NULL DEFAULT '[]',        -- JSON: pids
    view_failures     INTEGER NOT NULL DEFAULT 0,
    exit              TEXT,                              -- JSON: the exit record
    result            TEXT,                              -- JSON
    usage             TEXT,                              -- JSON
    PRIMARY KEY (agent_id, n),
    FOREIGN KEY (task_id, agent_id) REFERENCES agent (task_id, agent_id),
    CHECK ((outcome IS NOT NULL) = (state = 'ended')),
    CHECK ((ended_at IS NULL) = (state IN ('reserved', 'running', 'stopping'))),
    CHECK (state <> 'reserved' OR started_at IS NULL),
    CHECK (state <> 'running'
           OR (started_at IS NOT NULL AND runner_pid IS NOT NULL AND process_pid IS NOT NULL)),
    CHECK (state <> 'stopping' OR stop_reason IS NOT NULL),
    CHECK (exit_code IS NULL OR signal IS NULL),
    CHECK ((runner_pid IS NULL) = (runner_ticks IS NULL) AND (runner_pid IS NULL) = (runner_boot IS NULL)),
    CHECK ((process_pid IS NULL) = (process_ticks IS NULL) AND (process_pid IS NULL) = (process_boot IS NULL))
) STRICT;

-- At most one live run per agent, per (task, role) and per (task, work). These also find what is live
-- without a look at what is over.
CREATE UNIQUE INDEX run_live ON run (agent_id) WHERE live;
CREATE UNIQUE INDEX run_live_role ON run (task_id, role_slot) WHERE live;
CREATE UNIQUE INDEX run_live_work ON run (task_id, work_slot) WHERE live;
CREATE UNIQUE INDEX run_token ON run (token_hash) WHERE token_hash IS NOT NULL;
CREATE INDEX run_over ON run (ended_at) WHERE NOT live;

-- The run number only grows, so a token of an earlier run can always be told.
CREATE TRIGGER run_number_grows BEFORE INSERT ON run
WHEN NEW.n <= (SELECT max(n) FROM run WHERE agent_id = NEW.agent_id)
BEGIN
    SELECT RAISE(ABORT, 'run_number: an agent already has this run or a later one');
END;

-- A newcomer that takes a slot is refused by any live holder, even by a double that holds no slot.
CREATE TRIGGER run_role_is_free BEFORE INSERT ON run
WHEN NEW.role_slot IS NOT NULL AND EXISTS (
    SELECT 1 FROM run JOIN agent USING (agent_id)
     WHERE run.live AND run.task_id = NEW.task_id AND agent.role = NEW.role_slot)
BEGIN
    SELECT RAISE(ABORT, 'duplicate_role: a live agent of the task has this role');
END;

CREATE TRIGGER run_work_is_free BEFORE INSERT ON run
WHEN NEW.work_slot IS NOT NULL AND EXISTS (
    SELECT 1 FROM run JOIN agent USING (agent_id)
     WHERE run.live AND run.task_id = NEW.task_id AND agent.work_hash = NEW.work_slot)
BEGIN
    SELECT RAISE(ABORT, 'same_work: a live agent of the task has this work');
END;

CREATE TRIGGER run_over_stays_over BEFORE UPDATE OF state, outcome, ended_at, agent_id, n, task_id ON run
WHEN NOT OLD.live OR NEW.agent_id <> OLD.agent_id OR NEW.n <> OLD.n OR NEW.task_id <> OLD.task_id
BEGIN
    SELECT RAISE(ABORT, 'run_over: a run that is over stays over, and a run keeps its name');
END;

CREATE TRIGGER run_live_is_kept BEFORE DELETE ON run WHEN OLD.live
BEGIN
    SELECT RAISE(ABORT, 'run_live: a live run is never deleted');
END;

CREATE TABLE report (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,          -- never used again, so it is a cursor
    task_id  TEXT NOT NULL REFERENCES task,
    agent_id TEXT NOT NULL,
    run      INTEGER NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('working', 'blocked', 'done', 'failed')),
    message  TEXT NOT NULL,
    progress INTEGER CHECK (progress BETWEEN 0 AND 100),
    late     INTEGER NOT NULL CHECK (late IN (0, 1)),    -- it came after the end of its run
    at       REAL NOT NULL,
    FOREIGN KEY (agent_id, run) REFERENCES run (agent_id, n) ON DELETE CASCADE
) STRICT;

CREATE INDEX report_by_run ON report (agent_id, run);
CREATE INDEX report_by_task ON report (task_id);

CREATE TABLE finding (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id  TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    run      INTEGER NOT NULL,
    type     TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('critical', 'high', 'medium', 'low', 'info')),
    message  TEXT NOT NULL,
    data     TEXT NOT NULL,                              -- JSON
    late     INTEGER NOT NULL CHECK (late IN (0, 1)),
    at       REAL NOT NULL,
    FOREIGN KEY (task_id, agent_id) REFERENCES agent (task_id, agent_id)   -- outlives its run
) STRICT;

CREATE INDEX finding_by_task ON finding (task_id);
CREATE INDEX finding_by_agent ON finding (agent_id);

-- The journal. It has no foreign keys: it outlives what it tells of.
CREATE TABLE event (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at       REAL NOT NULL,
    kind     TEXT NOT NULL,
    task_id  TEXT,
    agent_id TEXT,
    run      INTEGER,
    reason   TEXT,
    data     TEXT NOT NULL                               -- JSON
) STRICT;

CREATE INDEX event_by_task ON event (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX event_by_agent ON event (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX event_refused ON event (task_id, reason) WHERE kind = 'refused';

-- Events with seq <= upto may be deleted; 0 but while a prune runs, inside its transaction.
CREATE TABLE retention (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    upto INTEGER NOT NULL
) STRICT;

INSERT INTO retention (one, upto) VALUES (1, 0);

CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
BEGIN
    SELECT RAISE(ABORT, 'journal: an event is never changed');
END;

CREATE TRIGGER event_is_kept BEFORE DELETE ON event WHEN OLD.seq > (SELECT upto FROM retention)
BEGIN
    SELECT RAISE(ABORT, 'journal: events are deleted by retention only');
END;

CREATE TABLE idempotency_key (
    scope        TEXT NOT NULL,                          -- who asks for what
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    agent_id     TEXT NOT NULL REFERENCES agent (agent_id) ON DELETE CASCADE,
    run          INTEGER NOT NULL,
    at           REAL NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_key_by_agent ON idempotency_key (agent_id);
