//! Plain relays, and who may connect to a process of any kind.

use sockmux_uring::cli::plan::{ExitKind, LinkPlan, Plan, Target, Transport};
use sockmux_uring::cli::show;

use crate::examples::{bind, run};

/// The plan as text, without the line of this machine's networks.
pub(crate) fn shown(plan: &Plan) -> String {
    let text = show::plan(plan);
    let of_machine = |line: &&str| !line.contains("   .localnet is now ");
    text.split_inclusive('\n').filter(of_machine).collect()
}

#[test]
fn a_plain_relay() {
    let plan = run(&["-Ph:8080-8081", "SERVER=tcprelay://[::1]:80", "TIMEOUT=io:60"]);
    let binds = vec![bind("h", 8080), bind("h", 8081)];
    let (target, transport) = (Target { host: "::1".into(), port: 80 }, Transport::Tcp);
    let server = ExitKind::Server { target, transport };
    assert_eq!(plan.link, LinkPlan::Relay { binds, server, transport });
    assert!(plan.entrances.is_empty() && plan.exits.is_empty());
    let wanted = "\
link        none: a plain relay
entrances   h:8080-8081
server      [::1]:80
clients     this machine and its networks (.localnet, as RELIABLE= is not given)
times       con       10 s      for a connect to the server
            io        60 s      without data, then both connections are reset
            drain     7 s       for open connections after SIGTERM
congestion  auto: a plain one on short paths, the system's on long ones
bulk        auto: spliced where that pays, else copied
privileges  no core dumps, no new privileges, no commands, no files
";
    assert_eq!(shown(&plan), wanted);
}

#[test]
fn a_plain_relay_of_udp() {
    let plan = run(&[
        "-P53/udp,[::1]:54/udp",
        "SERVER=udprelay://hostU:53",
        "TIMEOUT=udp:0",
        "SOXCONF=udpflows:100",
    ]);
    let binds = vec![bind("", 53), bind("::1", 54)];
    let (target, transport) = (Target { host: "hostU".into(), port: 53 }, Transport::Udp);
    let server = ExitKind::Server { target, transport };
    assert_eq!(plan.link, LinkPlan::Relay { binds, server, transport });
    assert!(plan.entrances.is_empty() && plan.exits.is_empty());
    assert_eq!((plan.timeouts.udp, plan.soxconf.udp_flows), (None, 100));
    let wanted = "\
link        none: a plain relay
entrances   *:53/udp
            [::1]:54/udp
server      hostU:53/udp
clients     this machine and its networks (.localnet, as RELIABLE= is not given)
times       udp       never     without datagrams, then a UDP flow is forgotten
            drain     7 s       for talking flows after SIGTERM
udp flows   at most 100; the one silent for longest makes room for a new one
privileges  no core dumps, no new privileges, no commands, files only to look names up
";
    assert_eq!(shown(&plan), wanted);
}

#[test]
fn who_may_connect_is_shown() {
    let default = "this machine and its networks (.localnet, as RELIABLE= is not given)";
    let streams = "of the peer's streams: everybody";
    for (words, wanted, has_networks) in [
        (&["-P9000", "PORT=1"][..], &[default][..], true),
        (&["-P9000", "DEST=h:1"], &[default, streams], true),
        (&["SERVER=sockmux://h:9000", "PORT=1", "DEST=h:1"], &[default, streams], true),
        (&["SERVER=sockmux://h:9000", "DEST=h:1"], &[streams], false),
        (&["-P8080", "SERVER=http"], &[default], true),
        (&["-P9000", "DEST=h:1", "RELIABLE=.localnet,10.0.0.1"], &[".localnet,10.0.0.1"], true),
        (&["-P9000", "DEST=h:1", "RELIABLE=10.0.0.1"], &["10.0.0.1"], false),
        (&["-P9000", "DEST=h:1", "RELIABLE=*"], &["everybody"], false),
    ] {
        let plan = run(words);
        let lines = format!("\nclients     {}\n", wanted.join("\n            "));
        assert!(shown(&plan).contains(&lines), "{words:?}: {}", shown(&plan));
        let whole = show::plan(&plan);
        let networks = whole.contains("\n               .localnet is now 127.0.0.0/8");
        assert_eq!(networks, has_networks, "{words:?}: {whole}");
    }
}

#[test]
fn a_connection_in_clear_is_shown() {
    for (words, wanted) in [
        (
            &["-P9000", "DEST=h:1"][..],
            Some("encrypt it: make a key at each end by `sockmux-uring keygen`"),
        ),
        (&["-P127.0.0.1:9000,[::1]:9000", "DEST=h:1"], Some("it stays on this machine")),
        (&["-P127.0.0.1:9000,9001", "DEST=h:1"], Some("encrypt it")),
        (&["SERVER=sockmux://h:9000", "DEST=h:1"], Some("encrypt it")),
        (&["SERVER=sockmux://localhost:9000", "DEST=h:1"], Some("it stays on this machine")),
        (&["SERVER=sockmux:proc@ssh h", "DEST=h:1"], None),
        (&["-P8080", "SERVER=tcprelay://h:1"], None),
        (&["-P9000", "DEST=h:1", "TLSCONF=secret:s"], None),
    ] {
        let shown = shown(&run(words));
        let line = wanted.map(|wanted| format!("\n            not encrypted: {wanted}"));
        assert_eq!(shown.contains("encrypted"), line.is_some(), "{words:?}: {shown}");
        assert!(line.is_none_or(|line| shown.contains(&line)), "{words:?}: {shown}");
    }
}
