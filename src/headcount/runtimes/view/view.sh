# Show one run as it happens, until its runner is gone. What a tmux session of ours runs:
#
#   sh view.sh RUNDIR RUNNER_PID output|transcript [portable]
#
# A few small programs and not Python: a view costs less than 1 MB. Functions, called in the last line:
# a shell reads its script piece by piece, and a package that is replaced meanwhile must not change it.

# Print a sed program that makes control characters visible: C0 and DEL as ^X, C1 as <C1>, stray bytes that
# are not UTF-8 as U+FFFD. It works on bytes, because a UTF-8 locale is not everywhere. NUL, and a
# character that breaks off, are left to tmux, which drops them.
visible() {
    control='[\001-\010\013-\037\177]'
    caret='ABCDEFGHKLMNOPQRSTUVWXYZ[\\\\]^_?'
    more='[\200-\277]'
    printf "s/\015\$//
s/$control/^&/g
y/\001\002\003\004\005\006\007\010\013\014\015\016\017\020\021\022\023\024\025\026\027\030\031\032\033\034\035\036\037\177/$caret/
s/\302[\200-\237]/<C1>/g
s/[\300\301\365-\377]/\357\277\275/g
s/([\302-\337]$more|[\340-\357]$more{2}|[\360-\364]$more{3}|^|[\001-\177])$more+/\\\\1\357\277\275/g
"
}

# sed writes to a terminal and so line by line, without -u, which would make it read byte by byte. Its
# program is not an argument because `ps` would show the bytes in it.
escape() {
    exec sed -E -f /dev/fd/3 3<<END
$(visible)
END
}

# Set `file` and `offset` to the part of the output that is written now: output.jsonl until it is full,
# then the output.OFFSET.jsonl with the greatest offset. False if it is the one that is shown already.
newer_part() {
    [ "$what" = output ] || return 1
    shown=$offset
    for part in output.[0-9]*.jsonl; do
        number=${part#output.}
        number=${number%.jsonl}
        [ "$number" -gt "$offset" ] && offset=$number file=$part
    done
    [ "$offset" -gt "$shown" ]
}

alive() { kill -0 "$1"; }

# Wait $1 seconds or until the runner is gone, without waking up. Fails where GNU's programs are not.
pause() {
    timeout --foreground "$1" tail --pid="$runner" -f /dev/null
    case $? in 0 | 124) return 0 ;; *) return 1 ;; esac
}

# Output is looked for in a new part twice a minute, and often once it has become so long that there is one.
follow() {
    while :; do
        tail -n "$lines" --pid="$runner" -F "$file" &
        shower=$!
        until newer_part; do
            if [ "$offset" -ge 0 ]; then period=2; else period=30; fi
            pause "$period" || { kill "$shower"; return 1; }
            alive "$runner" || { wait "$shower"; return 0; }
        done
        kill "$shower"
        lines=+1
    done
}

# The same for systems whose tail knows no --pid: a process per second.
follow_portably() {
    while :; do
        tail -n "$lines" -F "$file" &
        shower=$!
        until newer_part; do
            sleep 1
            alive "$runner" || { sleep 1; kill "$shower"; return 0; } # a tail that polls has its last words
        done
        kill "$shower"
        lines=+1
    done
}

view() {
    runner=$2 what=$3 how=${4-}
    case $what in output) file=output.jsonl ;; *) file=transcript ;; esac
    lines=200 offset=-1
    LC_ALL=C PATH=$PATH:/usr/bin:/bin
    export LC_ALL PATH
    trap '' INT QUIT TSTP # keys that somebody presses in the window end nothing
    exec 2>/dev/null
    cd "$1" || return 1
    newer_part
    if [ "$how" = portable ]; then follow_portably; else follow || follow_portably; fi | escape
}

view "$@"
