# --- the machinery, the same in every program ---

set +e
set +x
umask 077

# Run one function in a subshell, as strict as sh can be; leave its exit status in $status. It must never be called in a
# condition: sh would then ignore errors inside of it.
attempt() {
    ( exec </dev/null >>output 2>&1 3>&-; cd /; umask 022; trap - HUP; set -eu; "$1" )
    status=$?
}

# Leave the seconds since the boot in $now, without a process.
read_clock() { read -r now rest </proc/uptime; }

# Append a record: number, outcome, exit status, begin, end, output. The full stop at the end shows that it is whole.
record() { printf '%s %s %s %s %s %s .\n' "$1" "$2" "$status" "$began" "$now" "$printed" >>records; }

# Wake the follower: there is something to read. The next step rings for the outcome of the one before it.
ring() { echo >&3; }

# Leave the end of what the step printed in $printed, as base64; a hyphen when it printed nothing.
read_output() {
    printed=-
    if [ -s output ]; then printed=$(tail -c "$assay_output_bytes" output | base64 -w 0); fi
}

# perform NUMBER required|optional tested|untested
perform() {
    case "$failed" in *" $1 $2 "*) halted=yes ;; esac
    case "$recorded" in *" $1 "*) return ;; esac
    status=0 printed=-
    read_clock
    began=$now
    if [ -n "$halted" ]; then record "$1" skipped; return; fi
    record "$1" began
    ring
    : >output
    decide "$1" "$3"
    read_output
    read_clock
    record "$1" "$outcome"
    if [ "$outcome$2" = failedrequired ]; then halted=yes; fi
}

# Leave the outcome of a step in $outcome: the test, the action when it is needed, and the test again. What the first
# test prints is dropped: it costs more to pass on than most tests take.
decide() {
    if [ "$2" = tested ]; then
        attempt "test_$1"
        outcome=ok
        : >output
        if [ "$status" -eq 0 ]; then return; fi
    fi
    attempt "action_$1"
    outcome=failed
    if [ "$status" -ne 0 ]; then return; fi
    outcome=changed
    if [ "$2" = untested ]; then
        if [ "$(tail -n 1 output)" = unchanged ]; then outcome=ok; fi
        return
    fi
    attempt "test_$1"
    if [ "$status" -eq 0 ]; then return; fi
    outcome=failed
    printf '\nthe action succeeded, but its test does not hold after it (exit status %s)\n' "$status" >>output
}

# The runner: all steps, in the background, whatever becomes of the connection.
run() {
    trap '' HUP
    read -r pid rest </proc/self/stat
    printf '%s\n' "$pid" >runner
    # Whoever started us waits for the end of our standard output: from here on we can be found.
    exec >>trouble 4<&-
    recorded=' ' failed=' ' halted=
    while read -r number outcome rest; do
        case "$outcome $rest" in
        failed*' .') recorded="$recorded$number " failed="$failed$number required " ;;
        ok*' .' | changed*' .') recorded="$recorded$number " ;;
        esac
    done <records
    run_steps
    printf 'end .\n' >>records
    ring
}

# is_alive FOLDER runner|follower. A process id may have been given away again, so its working folder must match.
is_alive() {
    [ -s "$1/$2" ] && read -r found <"$1/$2" && [ "/proc/$found/cwd" -ef "$1" ]
}

# Wait for the runners of other programs, and remove what they left.
settle_others() {
    for other in "$assay_state"/*/; do
        other=${other%/}
        if [ ! -d "$other" ] || [ "$other" = "$assay_run" ]; then continue; fi
        while is_alive "$other" runner; do nap; done
        rm -rf "$other"
    done
}

nap() { sleep 0.1 2>/dev/null || sleep 1; }

# Become the one who hears the bell: a follower whose connection broke may still listen.
replace_follower() {
    if is_alive . follower; then kill "$found"; fi
    while is_alive . follower; do nap; done
    read -r pid rest </proc/self/stat
    printf '%s\n' "$pid" >follower
}

# Print the records as they come, until the end or the death of the runner: all that are there at once, for each write is
# a packet. The runner alone holds the other end of the bell: when it dies, the bell is at its end too, and what it wrote
# before that is read once more.
follow() {
    part='' line='' dead='' ended=''
    while :; do
        news=
        while IFS= read -r line; do
            line=$part$line part=
            news="$news$assay_nonce $line
"
            if [ "$line" = 'end .' ]; then
                ended=yes
                break
            fi
        done
        if [ -n "$news" ]; then printf %s "$news" || exit 1; fi
        if [ -n "$ended" ]; then return; fi
        part=$part$line
        if [ -n "$dead" ]; then
            printf '%s died %s .\n' "$assay_nonce" "$(tail -c 2000 trouble | base64 -w 0)"
            return
        fi
        read -r rest <&4 || dead=yes
    done <records
}

main() {
    assay_run=$assay_state/$assay_nonce
    mkdir -p "$assay_run" && cd "$assay_run" || exit 1
    settle_others
    replace_follower
    # Open for both directions first: to open one end of a pipe waits for somebody at the other.
    [ -p bell ] || mkfifo bell || exit 1
    exec 3<>bell 4<bell
    if ! is_alive . runner; then
        if ! [ -s records ] || ! grep -qx 'end \.' records; then
            printf '\n' >>records
            started=$(run </dev/null 2>>trouble &)
        fi
    fi
    exec 3>&-
    follow
    # The reader acknowledges the end; if it cannot, the records stay for the same program to be run again.
    if read -r answer; then
        cd / && rm -rf "$assay_run"
        rmdir "$assay_state" 2>/dev/null
    fi
}
