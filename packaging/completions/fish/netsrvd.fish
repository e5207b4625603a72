# Completion of netsrvd(1) for fish.

set -l commands run check apply explain reload probe sockopts
set -l no_command "not __fish_seen_subcommand_from $commands"
set -l command "__fish_seen_subcommand_from run check explain sockopts"
set -l run "__fish_seen_subcommand_from run"
set -l check "__fish_seen_subcommand_from check"
set -l apply "__fish_seen_subcommand_from apply"
set -l explain "__fish_seen_subcommand_from explain"
set -l reload "__fish_seen_subcommand_from reload"
set -l probe "__fish_seen_subcommand_from probe"
set -l sockopts "__fish_seen_subcommand_from sockopts"

function __netsrvd_listeners
    netsrvd check --all 2>/dev/null | string replace -rf '^listener\.([^".]*)\..*' '$1' | sort -u
end

complete -c netsrvd -f
complete -c netsrvd -n $no_command -a run -d 'serve until SIGTERM or Ctrl-C'
complete -c netsrvd -n $no_command -a check -d 'check the configuration and print what is in force'
complete -c netsrvd -n $no_command -a apply -d 'have systemd listen as the configuration says'
complete -c netsrvd -n $no_command -a explain -d 'say whether a client is let in, and why'
complete -c netsrvd -n $no_command -a reload -d 'have a daemon read its configuration again'
complete -c netsrvd -n $no_command -a probe -d 'measure the way to a host and back'
complete -c netsrvd -n $no_command -a sockopts -d 'list the socket options of this system'
complete -c netsrvd -n $no_command -l version -d 'show the version'
complete -c netsrvd -s h -l help -d 'show how to use it'

complete -c netsrvd -n $command -s c -l config -rF -d 'read this file and conf.d beside it'
complete -c netsrvd -n $run -l detach -d 'leave the terminal'
complete -c netsrvd -n $run -l pid-file -rF -d 'with --detach: hold this file locked'
complete -c netsrvd -n $run -l user -x -a '(__fish_complete_users)' \
    -d 'with --detach: become this user'
complete -c netsrvd -n $run -l control -rF -d 'answer `netsrvd status` at this socket'
complete -c netsrvd -n $run -l log -x -a 'auto journal syslog stderr' -d 'where records go'
complete -c netsrvd -n $run -l inetd -d 'serve the connection on standard input'
complete -c netsrvd -n $run -l listener -x -a '(__netsrvd_listeners)' \
    -d 'with --inetd: as this listener would'
complete -c netsrvd -n $check -l all -d 'print defaults, too'
complete -c netsrvd -n $check -l json -d 'print JSON, faults as well'
complete -c netsrvd -n $explain -l json -d 'print JSON'
complete -c netsrvd -n $apply -l dry-run -d 'show what would change, no more'
complete -c netsrvd -n $apply -l json -d 'print JSON'
complete -c netsrvd -n $apply -l rollback -d 'go back to the last good state'
complete -c netsrvd -n $explain -l udp -d 'ask about datagrams'
complete -c netsrvd -n $explain -a '(__netsrvd_listeners)' -d 'a listener'
complete -c netsrvd -n $reload -a '(pgrep -x netsrvd)' -d 'a daemon'
complete -c netsrvd -n $probe -a '(__fish_print_hostnames)' -d 'a host'
complete -c netsrvd -n $probe -l udp -d 'echo by UDP'
complete -c netsrvd -n $probe -l tcp -d 'echo by TCP'
complete -c netsrvd -n $probe -l stamp -d 'STAMP'
complete -c netsrvd -n $probe -l echoplus -d 'UDPEchoPlus'
complete -c netsrvd -n $probe -l key-file -rF -d 'the key of authenticated STAMP'
complete -c netsrvd -n $probe -l ssid -x -d 'the session identifier of STAMP'
complete -c netsrvd -n $probe -l time -d 'the clock of a time service'
complete -c netsrvd -n $probe -l daytime -d 'the clock of a daytime service'
complete -c netsrvd -n $probe -s n -l count -x -d 'probes of each stream; 0 for no end'
complete -c netsrvd -n $probe -l duration -x -d 'send as long as this'
complete -c netsrvd -n $probe -s i -l interval -x -d 'between probes of a stream'
complete -c netsrvd -n $probe -l poisson -d 'intervals of a Poisson process'
complete -c netsrvd -n $probe -s s -l size -x -d 'bytes of the payload'
complete -c netsrvd -n $probe -s W -l timeout -x -d 'after which a probe is lost'
complete -c netsrvd -n $probe -l source -x -d 'the source address'
complete -c netsrvd -n $probe -l interface -x -a '(__fish_print_interfaces)' -d 'the interface'
complete -c netsrvd -n $probe -l source-port -x -d 'the source port, or the first one'
complete -c netsrvd -n $probe -l sweep -x -d 'probe from this number of source ports'
complete -c netsrvd -n $probe -l dscp -x -a 'CS1 CS2 CS3 CS4 CS5 CS6 CS7 AF11 AF21 AF31 AF41 EF' \
    -d 'the code point'
complete -c netsrvd -n $probe -l ttl -x -d 'TTL or hop limit'
complete -c netsrvd -n $probe -l dont-fragment -d 'let no router fragment'
complete -c netsrvd -n $probe -s 4 -l ipv4 -d 'IPv4 addresses only'
complete -c netsrvd -n $probe -s 6 -l ipv6 -d 'IPv6 addresses only'
complete -c netsrvd -n $probe -l all -d 'probe all addresses of a name'
complete -c netsrvd -n $probe -l program-stamps -d 'measure without stamps of the kernel'
complete -c netsrvd -n $probe -s q -l quiet -d 'print the summary alone'
complete -c netsrvd -n $probe -l json -d 'print one JSON object'
complete -c netsrvd -n $probe -l csv -d 'print a line of values a probe'
complete -c netsrvd -n $probe -l live -d 'show a table that changes'
complete -c netsrvd -n $probe -l plot -rF -d 'draw into this file, .png or .svg'
complete -c netsrvd -n $probe -l nagios -d 'print a line as a plugin of Nagios'
complete -c netsrvd -n $probe -l fping -d 'take the other arguments as fping does'
complete -c netsrvd -n $probe -l warn -x -d 'with --nagios: thresholds of WARNING'
complete -c netsrvd -n $probe -l crit -x -d 'with --nagios: thresholds of CRITICAL'
complete -c netsrvd -n $sockopts -l json -d 'print JSON'
complete -c netsrvd -n $sockopts -l listener -x -a '(__netsrvd_listeners)' \
    -d 'show what this listener would set'
