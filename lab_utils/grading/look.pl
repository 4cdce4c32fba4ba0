#!/usr/bin/perl
# Runs on a node, as the forced command of a key that may look and not touch (sshd(8), "command=").
#
# What the key's holder asked for is read here, never by a shell: words, quotes, pipes, && || ; and a few
# harmless redirections. A command must be known, and each of its options too; a path must lie where there
# is something to learn and nothing secret. Everything else is refused with one line that says why.
#
# perl, because every Debian has it (perl-base is Essential), and no module beyond the interpreter is needed.
use strict;
use warnings;

$ENV{PATH} = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
delete @ENV{qw(IFS CDPATH ENV BASH_ENV PERL5LIB PERL5OPT LD_PRELOAD LD_LIBRARY_PATH PAGER SYSTEMD_PAGER)};
$ENV{SYSTEMD_PAGER} = "cat";

sub refuse { print STDERR "this key may only look: $_[0]\n"; exit 126 }

# Where files may be read, and places in them that may not.
my @readable = qw(/proc /sys /etc/cni /etc/containerd /etc/kubernetes/manifests /etc/resolv.conf /etc/hosts /etc/hostname /etc/os-release
    /etc/nsswitch.conf /etc/services /etc/protocols /etc/crictl.yaml /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system
    /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /var/lib/cni /run/flannel /opt/cni /var/log/pods /var/log/containers /usr/share /dev/null);
my @listable = (@readable, qw(/ /etc /etc/kubernetes /var /var/lib /var/lib/kubelet /run /opt /var/log /home /var/run /run/containerd /run/netns /var/run/netns /usr/bin /usr/sbin /usr/local/bin));
my $secret = qr{/(?:root|cwd|fd|fdinfo|exe|mem|environ|map_files|auxv|pagemap|stack|kcore|kmsg|kallsyms|keys|task)(?:/|$)};

sub real {
    my ($path) = @_;
    my @parts;
    my $hops = 0;
    my @todo = split m{/+}, $path;
    while (@todo) {    # readlink -f, so that no link leads out of where we allow
        my $part = shift @todo;
        next if $part eq "" || $part eq ".";
        if ($part eq "..") { pop @parts; next }
        my $here = "/" . join("/", @parts, $part);
        refuse("$path goes through a place that it may not") if "$here/" =~ m{^/proc/} && "$here/" =~ $secret;
        my $link = readlink $here;
        if (defined $link && $hops++ < 40) {
            @parts = () if $link =~ m{^/};
            unshift @todo, split m{/+}, $link;
            next;
        }
        push @parts, $part;
    }
    return "/" . join("/", @parts);
}

sub allowed_path {
    my ($path, $list) = @_;
    refuse("say $path with its whole path") if $path !~ m{^/};
    my $real = real($path);
    refuse("$path may hold a secret") if $real =~ m{kubeconfig|token|secret|\.key$|\.pem$}i;
    for my $root ($list ? @listable : @readable) {
        my $home = real($root);
        return 1 if $real eq $home;
        return 1 if index($real, "$home/") == 0 && !($list && !grep { $_ eq $root } @readable);
    }
    refuse("$path is not among the files that it may read");
}

sub words_ok {    # every word must match one of these
    my ($words, @patterns) = @_;
    for my $word (@$words) {
        refuse("the word '$word' is not allowed here") unless grep { $word =~ /^(?:$_)$/s } @patterns;
    }
}

my $name = '[A-Za-z0-9@][A-Za-z0-9_.:/@%+-]*';    # never begins with a dash
my $plain = '(?!-)[^@]*';                          # of a filter: no option, no @file

# A file reader: options as listed, the words after $skip of them are paths.
sub reads {
    my ($words, $options, $skip, $list) = @_;
    for my $word (@$words) {
        if ($word =~ /^-/ && $word ne "-") {
            refuse("the option '$word' is not allowed here") unless $word =~ /^(?:$options)$/;
            next;
        }
        if ($skip > 0) { $skip--; next }
        next if $word =~ /^\+?\d+$/ || $word eq "-";
        allowed_path($word, $list);
    }
}

my %known;
%known = (
    ip => sub {
        my @w = @{ $_[0] };
        while (@w && $w[0] =~ /^-/) {
            my $option = shift @w;
            if ($option =~ /^-(?:n|netns)$/) { words_ok([shift @w // ""], $name); next }
            words_ok([$option], '-(?:j|json|p|pretty|d|details|s|stats|statistics|4|6|br|brief|o|oneline|c|color|r|N)');
        }
        return unless @w;
        my $object = shift @w;
        if ($object eq "netns" && @w && $w[0] eq "exec") { shift @w; words_ok([shift @w // ""], $name); check([@w]); return }
        words_ok([$object], qw(l link a addr address r ro route n neigh neighbor neighbour rule netns maddr maddress tunnel xfrm));
        refuse("say `ip $object show`") if $object eq "xfrm";
        return unless @w;
        my $verb = shift @w;
        words_ok([$verb], qw(show list ls lst get list-id), ($object =~ /^net/ ? qw(identify pids) : ()));
        words_ok(\@w, $plain);
    },
    bridge => sub {
        my @w = @{ $_[0] };
        shift @w while @w && $w[0] =~ /^-(?:j|json|d|details|s|statistics|p|c|color)$/;
        words_ok([shift @w // ""], qw(link fdb vlan mdb));
        words_ok([shift @w], qw(show list)) if @w;
        words_ok(\@w, $plain);
    },
    (map { $_ => sub { words_ok($_[0], '-c', '--counters', '-t', '--table', qw(filter nat mangle raw security)) } }
        map { ("$_-save", "$_-legacy-save", "$_-nft-save") } qw(iptables ip6tables)),
    (map { $_ => sub { words_ok($_[0], '-[nvxLSw]+', '-t', '--list', '--list-rules', '--numeric', '--verbose', '--exact', '--line-numbers', '--table', '[A-Za-z0-9_-]*[A-Za-z0-9_][A-Za-z0-9_-]*(?<!^-)') ; grep { /^-(?!(?:[nvxLSwt]+|-list|-list-rules|-numeric|-verbose|-exact|-line-numbers|-table)$)/ } @{ $_[0] } and refuse("that option is not allowed here") } } qw(iptables ip6tables)),
    nft => sub { my @w = @{ $_[0] }; shift @w while @w && $w[0] =~ /^-[ajnsSNp]+$/; words_ok([shift @w // ""], 'list'); words_ok(\@w, '(?!-)[A-Za-z0-9_.-]+') },
    ipset => sub { my @w = @{ $_[0] }; words_ok([shift @w // ""], qw(list -L -n save)); words_ok(\@w, '-[not]', '-name', $name, 'plain', 'json') },
    ipvsadm => sub { words_ok($_[0], '-[LlnS]+', '--stats', '--rate', '--numeric') },
    conntrack => sub {
        my @w = @{ $_[0] };
        refuse("say `conntrack -L`") unless grep { /^-[LSC]$/ } @w;
        words_ok(\@w, '-[LSCpsdonfgrq]', '--(?:sport|dport|proto|src|dst|orig-src|orig-dst|orig-port-src|orig-port-dst|reply-src|reply-dst|state|output|dst-nat|src-nat|any-nat|status|family|stats|count|dump)', $plain);
    },
    ss => sub { words_ok($_[0], '-[tulnpaxeiomrs460HOw]+', '--(?:tcp|udp|listening|numeric|processes|all|no-header|json)', $plain) },
    ps => sub {
        # Environments are shown by `e` in BSD's way of writing (also in `ps -auxe`, which ps reads so when there is no user xe) and by the column environ.
        my @w = @{ $_[0] };
        for my $at (0 .. $#w) {
            my $shows = $w[$at] =~ /environ/i || ($w[$at] =~ /^-[A-Za-z]*e/ && $w[$at] =~ /^-[A-Za-z]*[^-AFHLMTZcdefjlowy]/);
            my $value = $at && $w[ $at - 1 ] =~ /^-(?:-(?:q?pid|ppid|format|sort|tty|sid|[a-z]*user|[a-z]*group|cols|columns|width|rows|lines)|[A-Za-z]*[oOCuUgGtsqpkN])$/;
            $shows ||= $w[$at] =~ /^[A-Za-z0-9]*e/ && !$value;
            refuse("ps may not show what programs have in their environment") if $shows;
        }
        words_ok(\@w, '-?[A-Za-z0-9_,:=%+.]+', '--[a-z-]+=?[A-Za-z0-9_,+%.-]*', '-[A-Za-z]*');
    },
    crictl => sub {
        my @w = @{ $_[0] };
        words_ok([shift @w // ""], qw(ps pods images img inspect inspecti inspectp stats statsp info version imagefsinfo logs));
        words_ok(\@w, '--?(?:o|output|a|all|name|namespace|label|state|pod|image|q|quiet|v|no-trunc|tail|latest|l|id|n|last|timestamps|t|since)(?:=[^@]*)?', $plain);
    },
    ctr => sub { my @w = @{ $_[0] }; if (@w && $w[0] =~ /^(?:-n|--namespace)$/) { shift @w; shift @w } words_ok([shift @w // ""], qw(containers container c images image i tasks task t snapshots snapshot namespaces ns version)); return unless @w; words_ok([shift @w], qw(ls list info)); words_ok(\@w, '-q', $name) },
    runc => sub { my @w = @{ $_[0] }; shift @w, shift @w if @w && $w[0] eq "--root"; words_ok([shift @w // ""], qw(list state --version)); words_ok(\@w, $name) },
    systemctl => sub { my @w = @{ $_[0] }; @w = grep { !/^(?:--no-pager|--all|-a|--plain|--no-legend|--full|-l|--type=[a-z,]+|--state=[a-z,]+|--value|-p|--property=[A-Za-z,]+|--failed)$/ } @w; words_ok([shift @w // ""], qw(status is-active is-enabled is-failed list-units list-unit-files list-dependencies cat show)); words_ok(\@w, $name) },
    journalctl => sub { words_ok($_[0], '-[unbkroxagpSUqet]', '-n\d+', '--(?:no-pager|unit|lines|since|until|output|grep|boot|dmesg|reverse|quiet|utc|all)(?:=[^@]*)?', $plain) },
    nsenter => sub {
        my @w = @{ $_[0] };
        while (@w && $w[0] =~ /^-/) {
            my $option = shift @w;
            if ($option =~ /^(?:-t|--target)$/) { words_ok([shift @w // ""], '\d+'); next }
            words_ok([$option], '-n', '--net', '--target=\d+', '-t\d+', '-(?:n?t)\d+', '--net=/(?:var/)?run/netns/[A-Za-z0-9_.-]+', '--net=/proc/\d+/ns/net');
        }
        check([@w]);
    },
    timeout => sub { my @w = @{ $_[0] }; shift @w while @w && $w[0] =~ /^(?:--foreground|--preserve-status|-k\d+)$/; my $limit = shift @w // ""; words_ok([$limit], '\d+(?:\.\d+)?s?'); refuse("at most timeout 300") if ($limit =~ /^([\d.]+)/)[0] > 300; check([@w]) },
    curl => sub {
        my @w = @{ $_[0] };
        while (@w) {
            my $word = shift @w;
            if ($word =~ /^-(?:m|H|w|o|A|-max-time|-connect-timeout|-header|-write-out|-output|-resolve|-interface|-local-port|-retry)$/) {
                my $value = shift @w // "";
                refuse("curl may write to /dev/null only") if $word =~ /^(?:-o|--output)$/ && $value ne "/dev/null" && $value ne "-";
                refuse("'$value' would read or write a file") if $value =~ /^@|%output/;
                next;
            }
            words_ok([$word], '-[sSfvikIgL46]+', '--(?:silent|show-error|fail|verbose|include|head|insecure|ipv4|ipv6|http1\.1|http2|location|no-keepalive|globoff)', '--(?:max-time|connect-timeout|retry)=?[\d.]+', '(?:https?://)?[A-Za-z0-9\[][^@{}\s]*');
            # curl takes [a-z] for a range anywhere, so "fi[l-l]e:" would be another scheme.
            refuse("brackets hold an IPv6 address only") if $word =~ /[\[\]]/ && $word !~ m{^(?:https?://)?\[[0-9A-Fa-f:.]+\][^\[\]]*$};
            refuse("curl may speak http and https only") if $word =~ m{^([A-Za-z0-9+.-]+)://} && $1 !~ /^https?$/i;
            refuse("curl may speak http and https only") if $word =~ /^(?:file|ftp|gopher|dict|telnet|scp|sftp|smb|ldap|tftp)[:.]/i;
        }
    },
    ping => sub { words_ok($_[0], '-[46nqAbDv]+', '-[cWiwsIt]', '-[cWiw][\d.]+', $name); refuse("say how often: ping -c 3") unless grep { /^-c/ } @{ $_[0] } },
    nc => sub { words_ok($_[0], '-[zvn46uw]+\d*', '\d+', $name); refuse("say `nc -z`") unless grep { /^-\w*z/ } @{ $_[0] } },
    dig => sub { words_ok($_[0], '\+[a-z0-9=]+', '-[tpx46]', '@[A-Za-z0-9.:]+', $name) },
    tcpdump => sub { words_ok($_[0], '-[nevltqAXxUpi]+', '-[icsB]', '-c\d+', $plain); refuse("say how many packets: tcpdump -c 10") unless grep { /^-c/ } @{ $_[0] } },
    ethtool => sub { words_ok($_[0], '-[ikSTl]', $name) },
    arp => sub { words_ok($_[0], '-[an]+', '-i', $name) },
    route => sub { words_ok($_[0], '-n', '-6') },
    netstat => sub { words_ok($_[0], '-[tulnpars46i]+') },
    hostname => sub { words_ok($_[0], '-[Ifis]') },
    date => sub { words_ok($_[0], '\+[^@]*', '-[uIR]', '-Is') },
    sysctl => sub { words_ok($_[0], '-[nae]+', '[A-Za-z0-9_./*-]+'); grep { /^-(?:[^nae]|.*[wpf])/ || /^--(?:write|load|system)/ } @{ $_[0] } and refuse("sysctl may only read") },
    mount => sub { refuse("mount may only list") if "@{ $_[0] }" !~ /^(?:-l)? ?(?:-t [a-z0-9,]+)?$/ },
    (map { $_ => sub { words_ok($_[0], '-[A-Za-z0-9]+', '--[a-z-]+', '[A-Za-z0-9_.,:=/+-]+') } } qw(lsblk lsmod lsns free df uptime uname nproc id whoami pstree pgrep pidof which lscpu true)),
    findmnt => sub { words_ok($_[0], '-[ABRJlnortuDe]+', '(?!-)[A-Za-z0-9_.,:=/+-]+', '--(?:json|list|raw|noheadings|output|types|target|kernel)(?:=[A-Za-z0-9_.,\/-]+)?') },
    getent => sub { words_ok([$_[0][0] // ""], qw(hosts ahosts ahostsv4 ahostsv6 passwd group services protocols networks)); words_ok($_[0], $name) },
    test => sub { my @w = @{ $_[0] }; words_ok([shift @w // ""], '-[xfedrsL]'); allowed_path($_, 1) for @w },
    false => sub { words_ok($_[0], 'x{0}') },
    base64 => sub { reads($_[0], '--|-w0', 0) },
    echo => sub { 1 },
    sleep => sub { words_ok($_[0], '[0-9.]+') },
    (map { $_ => sub { refuse("only its --version") if "@{ $_[0] }" !~ /^(?:--version|-v|version)$/ } } qw(containerd kubeadm)),
    kubelet => sub { refuse("only its --version") if "@{ $_[0] }" ne "--version" },
    cat => sub { reads($_[0], '-[nAbEsT]+', 0) },
    head => sub { reads($_[0], '-[ncq]?\d*|--lines=\d+', 0) },
    tail => sub { reads($_[0], '-[ncq]?\+?\d*|--lines=\d+', 0) },
    wc => sub { reads($_[0], '-[lwcm]+', 0) },
    grep => sub { reads($_[0], '-[EFGPivwxcnlLohHqso]+|-[ABCm]\d*|--color=never', 1) },
    zgrep => sub { refuse("use grep") },
    stat => sub { reads($_[0], '-[cLt]+', (grep { /^-\w*c/ } @{ $_[0] }) ? 1 : 0, 1) },
    ls => sub { reads($_[0], '-[laAhtrdiSn1F]+|--full-time', 0, 1) },
    readlink => sub { my @w = @{ $_[0] }; for (@w) { next if /^-[fe]$/; next if m{^/proc/\d+/(?:ns/[a-z_]+|exe|cwd|root)$}; allowed_path($_, 1) } },
    sha256sum => sub { reads($_[0], '-b', 0) },
    sort => sub { words_ok($_[0], '-[nrukthV]+\d*', '-[kt].{1,6}', '[0-9,.]+', '.') },
    uniq => sub { words_ok($_[0], '-[cdui]+') },
    cut => sub { words_ok($_[0], '-[dfcsb].*', '[0-9,-]+', '.') },
    tr => sub { words_ok($_[0], '-[dsc]+', '.*') },
    column => sub { words_ok($_[0], '-[ts]+', '.') },
    jq => sub { my @w = grep { !/^-[rcMSejs]+$/ } @{ $_[0] }; refuse("jq reads from a pipe") if @w != 1 || $w[0] =~ /^-|\b(?:input_filename|include|import)\b/ },
    sh => sub { my @w = @{ $_[0] }; refuse("say sh -c '…', and only in front") unless $_[1]{top} && @w == 2 && $w[0] =~ /^-l?e?c$/; $_[1]{inner} = $w[1] },
    sudo => sub { my @w = @{ $_[0] }; shift @w while @w && $w[0] eq "-n"; check([@w], $_[1]); $_[1]->{words} //= [@w] },
);
$known{bash} = $known{sh};
$known{$_} = $known{iptables} for qw(iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy);

sub check {
    my ($words, $more) = @_;
    refuse("a command is missing") unless @$words;
    my ($command, @rest) = @$words;
    $command =~ s{^/(?:usr/)?(?:local/)?s?bin/}{};
    refuse("'$command' is not among the commands that it may run") unless $known{$command};
    $words->[0] = $command;
    $known{$command}->(\@rest, $more // {});
}

# Words, with quotes taken off; operators as [ "op" ].
sub tokens {
    my ($text) = @_;
    my @found;
    for ($text) {
        while (1) {
            /\G[ \t]+/gc;
            last if /\G\z/gc;
            if (/\G(?:1?>|&>)\s*\/dev\/null/gc) { push @found, ["null", 1]; next }
            if (/\G2>\s*\/dev\/null/gc) { push @found, ["null", 2]; next }
            if (/\G2>&1/gc) { push @found, ["join"]; next }
            if (/\G(\|\||&&|[|;\n])/gc) { push @found, [$1 eq "\n" ? ";" : $1]; next }
            my $word = "";
            my $some = 0;
            while (1) {
                if (/\G'([^']*)'/gc) { $word .= $1; $some = 1; next }
                if (/\G"((?:[^"\\\$`]|\\.)*)"/gcs) { my $in = $1; $in =~ s/\\(["\\\$`])/$1/g; $word .= $in; $some = 1; next }
                if (/\G\\(.)/gcs) { $word .= $1; $some = 1; next }
                if (/\G([^\s'"\\|&;<>()\$`#*?~!{}]+|[{}!*?~#](?=\S*))/gc) {
                    my $piece = $1;
                    refuse("'$piece' needs quotes: there is no shell here") if $piece =~ /^[*?~]$/;
                    $word .= $piece; $some = 1; next;
                }
                last;
            }
            refuse("'" . substr($text, pos($text) // 0, 12) . "' cannot be used here: there is no shell") unless $some;
            push @found, $word;
        }
    }
    return @found;
}

sub run_text {
    my ($text, $depth) = @_;
    refuse("too many shells in each other") if $depth > 2;
    my (@line, @stage, @stages);
    my $stage = { words => [], null => {}, join => 0 };
    my $close_stage = sub { push @stages, $stage; $stage = { words => [], null => {}, join => 0 } };
    my @lists;    # [ stages, operator after it ]
    for my $token (tokens($text), [";"]) {
        if (!ref $token) { push @{ $stage->{words} }, $token; next }
        my ($kind, $which) = @$token;
        if ($kind eq "null") { $stage->{null}{$which} = 1 }
        elsif ($kind eq "join") { $stage->{join} = 1 }
        elsif ($kind eq "|") { $close_stage->() }
        else {
            next if !@{ $stage->{words} } && !@stages && $kind eq ";";
            $close_stage->();
            push @lists, [[@stages], $kind];
            @stages = ();
        }
    }
    for my $list (@lists) { for my $one (@{ $list->[0] }) { my $more = { top => 1 }; check($one->{words}, $more); $one->{inner} = $more->{inner}; $one->{words} = $more->{words} if $more->{words} } }
    my $code = 0;
    my $skip = 0;
    for my $list (@lists) {
        my ($pipeline, $operator) = @$list;
        $code = run_pipeline($pipeline, $depth) unless $skip;
        $skip = ($operator eq "&&" && $code != 0) || ($operator eq "||" && $code == 0) || 0;
    }
    return $code;
}

sub run_pipeline {
    my ($stages, $depth) = @_;
    my ($last_out, @children);
    for my $index (0 .. $#$stages) {
        my $one = $stages->[$index];
        my ($reader, $writer);
        if ($index < $#$stages) { pipe($reader, $writer) or refuse("no pipe: $!") }
        my $pid = fork() // refuse("no process: $!");
        if (!$pid) {
            if ($last_out) { open(STDIN, "<&", $last_out) or exit 126 }
            elsif ($index == 0) { open(STDIN, "<", "/dev/null") or exit 126 }
            if ($writer) { open(STDOUT, ">&", $writer) or exit 126 }
            open(STDOUT, ">", "/dev/null") if $one->{null}{1};
            open(STDERR, ">", "/dev/null") if $one->{null}{2};
            open(STDERR, ">&", \*STDOUT) if $one->{join};
            close $reader if $reader;
            exit(run_text($one->{inner}, $depth + 1)) if defined $one->{inner};
            { no warnings; exec { $one->{words}[0] } @{ $one->{words} } }
            print STDERR "$one->{words}[0]: $!\n";
            exit 127;
        }
        push @children, $pid;
        close $writer if $writer;
        $last_out = $reader;
    }
    my $code = 0;
    for my $pid (@children) { waitpid($pid, 0); $code = $? & 127 ? 128 + ($? & 127) : $? >> 8 }
    return $code;
}

setpgrp(0, 0);
$SIG{ALRM} = sub { kill KILL => -$$ };    # nothing started by this key runs longer than this
alarm 300;
my $asked = $ENV{SSH_ORIGINAL_COMMAND} // "";
refuse("say what to run; there is no login") if $asked !~ /\S/;
refuse("that is too long") if length($asked) > 8192;
refuse("that holds characters that no command has") if $asked =~ /[\0\r]/;
exit run_text($asked, 0);
