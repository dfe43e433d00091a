-- name: put
-- The one row is that of the daemon that beat last.
INSERT INTO heartbeat (one, pid, boot_id, at, monotonic, headcounts, longest_s)
VALUES (1, :pid, :boot_id, :at, :monotonic, :headcounts, :longest)
    ON CONFLICT (one) DO UPDATE
   SET pid = :pid, boot_id = :boot_id, at = :at, monotonic = :monotonic, headcounts = :headcounts,
       longest_s = :longest;

-- name: get
-- The last sign of life of any daemon, or no row.
SELECT * FROM heartbeat;
