# Completion of netsrvd(1) for fish.

set -l commands run check apply explain reload sockopts
set -l no_command "not __fish_seen_subcommand_from $commands"
set -l command "__fish_seen_subcommand_from run check explain sockopts"
set -l run "__fish_seen_subcommand_from run"
set -l check "__fish_seen_subcommand_from check"
set -l apply "__fish_seen_subcommand_from apply"
set -l explain "__fish_seen_subcommand_from explain"
set -l reload "__fish_seen_subcommand_from reload"
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
complete -c netsrvd -n $no_command -a sockopts -d 'list the socket options of this system'
complete -c netsrvd -n $no_command -l version -d 'show the version'
complete -c netsrvd -s h -l help -d 'show how to use it'

complete -c netsrvd -n $command -s c -l config -rF -d 'read this file and conf.d beside it'
complete -c netsrvd -n $run -l detach -d 'leave the terminal'
complete -c netsrvd -n $run -l pid-file -rF -d 'with --detach: hold this file locked'
complete -c netsrvd -n $run -l user -x -a '(__fish_complete_users)' \
    -d 'with --detach: become this user'
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
complete -c netsrvd -n $sockopts -l json -d 'print JSON'
complete -c netsrvd -n $sockopts -l listener -x -a '(__netsrvd_listeners)' \
    -d 'show what this listener would set'
