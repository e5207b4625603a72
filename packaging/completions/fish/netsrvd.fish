# Completion of netsrvd(1) for fish. Generated from netsrvd/arguments.py by
# packaging/make-completions; a test compares the two.

set -g __netsrvd_commands 'netsrvd run' \
    'netsrvd check' \
    'netsrvd apply' \
    'netsrvd explain' \
    'netsrvd reload' \
    'netsrvd status' \
    'netsrvd metrics' \
    'netsrvd top' \
    'netsrvd probe' \
    'netsrvd sockopts'

set -g __netsrvd_valued 'netsrvd run -c' \
    'netsrvd run --config' \
    'netsrvd run --pid-file' \
    'netsrvd run --user' \
    'netsrvd run --listener' \
    'netsrvd run --log' \
    'netsrvd run --control' \
    'netsrvd check -c' \
    'netsrvd check --config' \
    'netsrvd explain -c' \
    'netsrvd explain --config' \
    'netsrvd status --control' \
    'netsrvd status --listener' \
    'netsrvd status --address' \
    'netsrvd status --warn' \
    'netsrvd status --crit' \
    'netsrvd metrics --control' \
    'netsrvd top --control' \
    'netsrvd probe --key-file' \
    'netsrvd probe --ssid' \
    'netsrvd probe -n' \
    'netsrvd probe --count' \
    'netsrvd probe --duration' \
    'netsrvd probe -i' \
    'netsrvd probe --interval' \
    'netsrvd probe -s' \
    'netsrvd probe --size' \
    'netsrvd probe -W' \
    'netsrvd probe --timeout' \
    'netsrvd probe --source' \
    'netsrvd probe --interface' \
    'netsrvd probe --source-port' \
    'netsrvd probe --sweep' \
    'netsrvd probe --dscp' \
    'netsrvd probe --ttl' \
    'netsrvd probe --fping' \
    'netsrvd probe --plot' \
    'netsrvd probe --warn' \
    'netsrvd probe --crit' \
    'netsrvd sockopts -c' \
    'netsrvd sockopts --config' \
    'netsrvd sockopts --listener'

function __netsrvd_listeners
    set -l config
    set -l words (commandline -opc)
    for index in (seq 2 (count $words))
        switch $words[$index]
            case -c --config
                set config --config $words[(math $index + 1)]
            case '--config=*'
                set config $words[$index]
        end
    end 2>/dev/null
    netsrvd check --all $config 2>/dev/null | string replace -rf '^listener\.(?:"([^"]*)"|([^".]*))\..*' '$1$2' |
        sort -u
end

# Whether the words so far name this command; with a number, and that many positional arguments.
function __netsrvd_at -a wanted number
    set -l words (commandline -opc)
    set -l command netsrvd
    set -l position 0
    set -l is_value 0
    for word in $words[2..]
        if test $is_value = 1
            set is_value 0
        else if contains -- "$command $word" $__netsrvd_valued
            set is_value 1
        else if contains -- "$command $word" $__netsrvd_commands
            set command "$command $word"
            set position 0
        else if not string match -q -- '-*' $word
            set position (math $position + 1)
        end
    end
    test "$command" = "$wanted"; and test -z "$number" -o "$number" = $position
end

complete -c netsrvd -f

complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a run -d 'serve until SIGTERM or Ctrl-C'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a check \
    -d 'check the configuration and print what it changes'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a apply \
    -d 'put the configuration into force under systemd'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a explain \
    -d 'say whether a client is admitted, and why'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a reload \
    -d 'make a daemon read its configuration again'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a status \
    -d 'show the state of each daemon, or its connections'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a metrics \
    -d 'print the metrics for Prometheus once'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a top \
    -d 'show the state of a daemon on a terminal, once a second'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a probe \
    -d 'measure the path to a host and back'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\' 0' -a sockopts \
    -d 'list the socket options of this system or of a listener'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\'' -s h -l help -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd\'' -l version \
    -d 'show program\'s version number and exit'

complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -s c -l config -rF \
    -d 'read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l detach \
    -d 'serve in the background, and log to syslog'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l pid-file -rF \
    -d 'with --detach: write the process ID into FILE and hold it locked'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l user -x -a '(__fish_complete_users)' \
    -d 'with --detach: become this user when the sockets are open'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l inetd \
    -d 'serve the connection on standard input, and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l listener -x -a '(__netsrvd_listeners)' \
    -d 'with --inetd: serve as this listener, not the first'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l log -x -a 'auto journal syslog stderr' \
    -d 'where records go, whatever the configuration says'
complete -c netsrvd -n '__netsrvd_at \'netsrvd run\'' -l control -rF \
    -d 'answer `netsrvd status` at this socket, or at an abstract name: @NAME'

complete -c netsrvd -n '__netsrvd_at \'netsrvd check\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd check\'' -s c -l config -rF \
    -d 'read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd check\'' -l json \
    -d 'print JSON, also if there are faults'
complete -c netsrvd -n '__netsrvd_at \'netsrvd check\'' -l all \
    -d 'print all settings, also those with their defaults'

complete -c netsrvd -n '__netsrvd_at \'netsrvd apply\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd apply\'' -l json -d 'print JSON'
complete -c netsrvd -n '__netsrvd_at \'netsrvd apply\'' -l dry-run \
    -d 'show what would change, and change nothing'
complete -c netsrvd -n '__netsrvd_at \'netsrvd apply\'' -l rollback \
    -d 'restore and apply the last good configuration'

complete -c netsrvd -n '__netsrvd_at \'netsrvd explain\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd explain\'' -s c -l config -rF \
    -d 'read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd explain\'' -l json -d 'print JSON'
complete -c netsrvd -n '__netsrvd_at \'netsrvd explain\'' -l udp \
    -d 'judge a datagram instead of a connection'
complete -c netsrvd -n '__netsrvd_at \'netsrvd explain\' 0' -a '(__netsrvd_listeners)' \
    -d 'name of a listener'

complete -c netsrvd -n '__netsrvd_at \'netsrvd reload\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd reload\' 0' -a '(pgrep -x netsrvd)' \
    -d 'process ID of the daemon (default: each that systemd runs)'

complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l json -d 'print JSON'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l control -rF \
    -d 'ask the daemon at this socket, not those that systemd runs'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l listener -x -a '(__netsrvd_listeners)' \
    -d 'with connections: only those of this listener'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l address -x \
    -d 'with connections: only those of these clients'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l warn -x \
    -d 'work as a monitoring plugin: a warning if this figure is out of range'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\'' -l crit -x \
    -d 'work as a monitoring plugin: critical if this figure is out of range'
complete -c netsrvd -n '__netsrvd_at \'netsrvd status\' 0' -a 'connections' \
    -d 'list the live connections'

complete -c netsrvd -n '__netsrvd_at \'netsrvd metrics\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd metrics\'' -l control -rF \
    -d 'ask the daemon at this socket, not those that systemd runs'
complete -c netsrvd -n '__netsrvd_at \'netsrvd metrics\'' -l openmetrics \
    -d 'print OpenMetrics, not Prometheus\' text format'

complete -c netsrvd -n '__netsrvd_at \'netsrvd top\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd top\'' -l control -rF \
    -d 'ask the daemon at this socket, not those that systemd runs'

complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l udp -d 'echo by UDP (default)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l tcp \
    -d 'echo by TCP; with --size 0: connect and close'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l stamp -d 'STAMP (RFC 8762)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l echoplus -d 'UDPEchoPlus (TR-143)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l time \
    -d 'the clock of a time service (RFC 868)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l daytime \
    -d 'the clock of a daytime service (RFC 867)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l key-file -rF \
    -d 'with --stamp: the key of both sides'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l ssid -x \
    -d 'with --stamp: the session identifier'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s n -l count -x \
    -d 'probes of each stream; 0 for no end (default: 10)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l duration -x \
    -d 'send for this time: 30s, 5m'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s i -l interval -x \
    -d 'time between two probes of a stream (default: 1s)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l poisson \
    -d 'draw intervals as of a Poisson process'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s s -l size -x \
    -d 'payload of a probe (default: 64)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s W -l timeout -x \
    -d 'a probe is lost without an answer in this time (default: 1s)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l source -x -d 'source address'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l interface -x -a '(command ls /sys/class/net)' \
    -d 'network interface'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l source-port -x \
    -d 'source port, or the first of several'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l sweep -x \
    -d 'probe from N source ports, to see each of several paths'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l dscp -x \
    -d '0 to 63, or a name such as EF'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l ttl -x -d 'TTL or hop limit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l dont-fragment \
    -d 'let no host or router fragment probes'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s 4 -l ipv4 -d 'IPv4 addresses only'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s 6 -l ipv6 -d 'IPv6 addresses only'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l all -d 'probe all addresses of a name'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l program-stamps \
    -d 'take times in the program, not in the kernel'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -s q -l quiet -d 'print only the summary'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l json -d 'print one JSON object'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l csv \
    -d 'print a line of values for each probe'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l live -d 'show a table that changes'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l nagios \
    -d 'print one line, as a monitoring plugin'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l fping -x \
    -d 'take the arguments of fping(8), and print as it does'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l plot -rF \
    -d 'also draw a picture, .png or .svg'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l warn -x \
    -d 'with --nagios: when it is a warning'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -l crit -x \
    -d 'with --nagios: when it is critical'
complete -c netsrvd -n '__netsrvd_at \'netsrvd probe\'' -a '(__fish_print_hostnames)' \
    -d 'hosts to probe; IPv6: [ADDRESS]:PORT'

complete -c netsrvd -n '__netsrvd_at \'netsrvd sockopts\'' -s h -l help \
    -d 'show this help message and exit'
complete -c netsrvd -n '__netsrvd_at \'netsrvd sockopts\'' -s c -l config -rF \
    -d 'read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)'
complete -c netsrvd -n '__netsrvd_at \'netsrvd sockopts\'' -l json -d 'print JSON'
complete -c netsrvd -n '__netsrvd_at \'netsrvd sockopts\'' -l listener -x -a '(__netsrvd_listeners)' \
    -d 'show what the configuration of this listener sets'
