# shellcheck shell=bash disable=SC2034
# What the service scripts share: where things live, and how a process is started, recognised, waited for and ended.
# Sourced by them, never run. Linux only: identity comes from /proc.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${CHAPPE_SERVICES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/chappe-services}
dist=$root/dist # downloads and builds: kept, never needs a registry again
run=$root/run   # one folder per instance: pid, log, conf, data
timeout_s=${CHAPPE_SERVICES_TIMEOUT_S:-120}

# Below the ephemeral range (32768+): an outgoing connection could take a listener's port otherwise.
port_base=${CHAPPE_SERVICES_PORT_BASE:-21000}
kafka_port=${CHAPPE_KAFKA_PORT:-$((port_base + 92))}   # node N at +N-1; its other listeners: kafka_controller and so on below
cql_port=${CHAPPE_CQL_PORT:-$((port_base + 42))}       # gossip at +1, JMX of node N at +10+N
redis_port=${CHAPPE_REDIS_PORT:-$((port_base + 379))}
s3_port=${CHAPPE_S3_PORT:-$((port_base + 900))}

# Every server asks for the same login where it asks for one; the CQL server knows only its own first user.
kafka_user=chappe
kafka_password=chappe-secret
cql_user=cassandra
cql_password=cassandra

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
now_ms() { date +%s%3N; }

java_bin() {
    local home=${CHAPPE_SERVICES_JAVA_HOME:-${JAVA_HOME:-}} java
    [ -z "$home" ] || { echo "$home/bin/java"; return; }
    command -v java && return
    for java in /usr/lib/jvm/*17*/bin/java; do [ -x "$java" ] && { echo "$java"; return; }; done
    die "no java: apt-get install openjdk-17-jdk-headless"
}
java_major() { "$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'; }

# --- downloads ---------------------------------------------------------------------------------------------

# jars NAME-VERSION POM: the dependencies of POM in $dist/NAME-VERSION. All or nothing, so an interrupted
# download is never mistaken for a whole one.
jars() {
    [ -d "$dist/$1" ] && return
    command -v mvn >/dev/null || die "no mvn: apt-get install maven"
    local tmp=$dist/.$1.$$ begin
    begin=$(now_ms)
    mkdir -p "$tmp"
    mvn -B -q -ntp -f "$2" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp" >&2 ||
        { rm -rf "$tmp"; die "mvn could not fetch $1"; }
    mv -T "$tmp" "$dist/$1"
    say "fetched $1 in $(($(now_ms) - begin)) ms, $(du -sm "$dist/$1" | cut -f1) MiB"
}

# A JVM starts with a third of the CPU and 40 MiB less when it maps its classes from an archive (class data sharing). The
# first instance that ever starts records one, and the later ones map it; one that no longer fits is ignored by the JVM.
cds_flag() { # cds_flag NAME JAVA
    local file
    file=$(cds_file "$1" "$2")
    if [ -f "$file" ]; then echo "-XX:SharedArchiveFile=$file"; else echo "-XX:+RecordDynamicDumpInfo"; fi
}
cds_file() { echo "$dist/$1.java$(java_major "$2").jsa"; }
cds_record() { # cds_record NAME JAVA INSTANCE: of a running instance; a failure costs speed only
    local file pid
    file=$(cds_file "$1" "$2")
    [ -f "$file" ] && return
    pid=$(live_pid "$3") || return 0
    if "${2%java}jcmd" "$pid" VM.cds dynamic_dump "$file.$pid" >/dev/null 2>&1 && [ -f "$file.$pid" ]; then
        mv "$file.$pid" "$file"
    fi
}

# --- certificates ------------------------------------------------------------------------------------------

tls=$root/tls

# ca.crt signed server.{crt,key} and client.{crt,key}; other-ca.crt signed nothing, so whoever trusts only that must
# refuse the servers. server.pem is key and certificate in one, as the Java servers want them. Made once, and all or
# nothing; of two makers at once one wins.
certificates() {
    [ -d "$tls" ] && return
    command -v openssl >/dev/null || die "no openssl: apt-get install openssl"
    local tmp=$root/.tls.$$
    mkdir -p "$tmp"
    (
        umask 077
        cd "$tmp"
        authority ca 'Chappe tests'
        authority other-ca 'Another authority'
        certificate server 'DNS:localhost,IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3' serverAuth
        certificate client 'DNS:client' clientAuth
        cat server.key server.crt >server.pem
        rm -f ./*.csr ./*.srl ./*.ext ca.key other-ca.key
    ) >"$root/tls.log" 2>&1 || { cat "$root/tls.log" >&2; rm -rf "$tmp"; die "openssl could not make the certificates"; }
    mv -T "$tmp" "$tls" 2>/dev/null || rm -rf "$tmp"
}
authority() { # authority NAME SUBJECT
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$1.key" -out "$1.crt"
}
certificate() { # certificate NAME SUBJECT_ALT_NAMES USAGE
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nsubjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3" >"$1.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
}

# --- processes ---------------------------------------------------------------------------------------------

# A pid alone may belong to someone else by now; a pid with its start time (clock ticks since boot) cannot.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# live_pid INSTANCE: prints its pid, fails if it is not running.
live_pid() {
    local pid started threads
    read -r pid started 2>/dev/null <"$run/$1/pid" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] || return 1
    # A zombie (its parent has not reaped it) still has its start time, but runs no more; unless only its first thread
    # has ended, as happens on the way out: then its ports and files are still held.
    case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in
        Z* | X* | '') threads=("/proc/$pid/task/"*); [ ${#threads[@]} -gt 1 ] || return 1 ;;
    esac
    echo "$pid"
}

# launch INSTANCE COMMAND...: in its own session, so neither Ctrl-C nor the end of this shell reaches it, and with
# no descriptor of ours but its log: one that it inherited would keep a caller's pipe or lock open.
launch() {
    local name=$1 dir=$run/$1 pid
    shift
    mkdir -p "$dir"
    [ -f "$dir/log" ] && mv "$dir/log" "$dir/log.before"
    setsid "$@" </dev/null >"$dir/log" 2>&1 8>&- 9>&- &
    pid=$!
    disown
    echo "$pid $(start_time "$pid")" >"$dir/pid"
    launched_ms=$(now_ms)
}

# await INSTANCE CHECK...: until CHECK succeeds; a dead process or the time-out shows the end of the log and fails.
await() {
    local name=$1 give_up=$((launched_ms + timeout_s * 1000)) why=''
    shift
    until "$@" 2>/dev/null; do
        live_pid "$name" >/dev/null || why="exited"
        [ "$(now_ms)" -lt $give_up ] || why="not ready after $timeout_s s"
        if [ -n "$why" ]; then
            say "--- end of $run/$name/log"
            tail -n 40 "$run/$name/log" >&2
            finish "$name" KILL
            die "$name: $why"
        fi
        sleep 0.1
    done
    say "$name: ready after $(($(now_ms) - launched_ms)) ms, pid $(live_pid "$name")"
}

# finish INSTANCE SIGNAL [GRACE_S]: SIGKILL follows once the grace is over. Returns when the process is gone.
finish() {
    local pid grace=${3:-10} give_up
    pid=$(live_pid "$1") || { rm -f "$run/$1/pid"; return 0; }
    kill -s CONT "$pid" 2>/dev/null || true # a stopped process would not act on TERM
    kill -s "$2" "$pid" 2>/dev/null || true
    give_up=$(($(now_ms) + grace * 1000))
    while live_pid "$1" >/dev/null; do
        [ "$(now_ms)" -lt $give_up ] || { kill -s KILL "$pid" 2>/dev/null || true; give_up=$(($(now_ms) + 60000)); }
        sleep 0.05
    done
    rm -f "$run/$1/pid"
    say "$1: stopped"
}

signal() {
    local pid
    pid=$(live_pid "$1") || die "$1 is not running"
    kill -s "$2" "$pid"
}

instances() { # instances PREFIX: those that have a folder
    local dir
    for dir in "$run/$1"*/; do [ -d "$dir" ] && basename "$dir"; done
}

report() { # report PREFIX: one line per instance
    local name pid
    for name in $(instances "$1"); do
        if pid=$(live_pid "$name"); then
            printf '%-8s %s pid %-7s rss %5s MiB  disk %5s MiB\n' "$name" \
                "$(grep -q '^State:.T' "/proc/$pid/status" && echo paused || echo 'up    ')" "$pid" \
                "$(($(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") / 1024))" "$(du -sm "$run/$name" | cut -f1)"
        else
            printf '%-8s down\n' "$name"
        fi
    done
}

free_port() { # free_port HOST PORT: fails early and clearly, instead of after a start-up
    if (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; then die "port $1:$2 is taken by another process"; fi
}
