//! Entrances and exits that are no ports of servers, and their options behind `?`, as a user of the
//! library sees them.

use sockmux_uring::cli::plan::{
    ExitKind, LinkPlan, Plan, Proxy, ProxyHeader, Target, Transport, UnixEntrance,
};
use sockmux_uring::cli::show;

use crate::one_file::{refused, run, run_with};

fn ways(plan: &Plan) -> Vec<ExitKind> {
    plan.exits.iter().map(|exit| exit.way.clone()).collect()
}

#[test]
fn unix_sockets_at_both_ends() {
    let plan = run(&[
        "-P9000",
        "PORT=unix:/run/a",
        "PORT=unix:b?mode=0666&proxy=accept",
        "DEST=unix:/run/c",
    ]);
    let entrance = |path: &str, mode, proxy_header| UnixEntrance {
        path: path.into(),
        mode,
        proxy_header,
        peers: Vec::new(),
    };
    assert_eq!(plan.unix_entrances, [entrance("/run/a", 0o600, false), entrance("b", 0o666, true)]);
    assert_eq!(plan.entrances, []);
    assert_eq!(ways(&plan), [ExitKind::Unix("/run/c".into())]);
    assert_eq!(plan.exits[0].transport(), Transport::Tcp);
    // One entrance is enough, and it counts as one where there can be none.
    run(&["SERVER=sockmux://h:9000", "PORT=unix:/run/a"]);
    assert_eq!(ways(&run(&["-Fsockmux", "-Qunix:/run/c"])), [ExitKind::Unix("/run/c".into())]);
}

#[test]
fn a_command_is_what_stands_before_the_last_in() {
    let plan = run(&["-P1", "SERVER=exec:grep -v ',-in' | sed 's/:/,/',-in:-:-P80"]);
    assert_eq!(ways(&plan), [ExitKind::Command("grep -v ',-in' | sed 's/:/,/'".into())]);
    assert_eq!(plan.exits[0].clients.as_ref().map(ToString::to_string).as_deref(), Some("-P80"));
    let plan = run_with(&["-P1", "+=conf"], "SERVER=exec:echo a b  c,-in\n");
    assert_eq!(ways(&plan), [ExitKind::Command("echo a b  c".into())]);
}

#[test]
fn ports_that_follow_the_entrance() {
    let plan =
        run(&["-P1", "DEST=h:-:-P80", "DEST=[::1]:+1000:-P81", "SERVER=dns://h:-5300/udp,-in"]);
    let at =
        |host: &str, offset, transport| ExitKind::SamePort { host: host.into(), offset, transport };
    let wanted = [
        at("h", 0, Transport::Tcp),
        at("::1", 1000, Transport::Tcp),
        at("h", -5300, Transport::Udp),
    ];
    assert_eq!(ways(&plan), wanted);
    assert_eq!(plan.exits[2].transport(), Transport::Udp);
}

#[test]
fn plain_relays_that_follow_the_entrance() {
    for (words, shown) in [
        (&["-P21,23,25", "SERVER=tcprelay://h:-/"][..], "server      h:the entrance's port\n"),
        (&["-P80-81", "SERVER=tcprelay://h:+8000"], "server      h:the entrance's port +8000\n"),
        (&["-P5353/udp", "SERVER=udprelay://h:-5300"], "h:the entrance's port -5300/udp\n"),
        (&["-P127.0.0.2:80", "SERVER=tcprelay://127.0.0.1:-"], "the entrance's port\n"),
    ] {
        let plan = run(words);
        assert!(show::plan(&plan).contains(shown), "{}", show::plan(&plan));
        assert_eq!(plan.notices, [""; 0]);
    }
    for (words, wanted) in [
        (["-P80,1000", "SERVER=tcprelay://h:-80"], "-P80,1000: *:80 and -80, as SERVER="),
        (
            ["-P60000-60001", "SERVER=tcprelay://h:+6000"],
            "is not a port; give ports that lead to one",
        ),
        (["-P80", "SERVER=tcprelay://localhost:-"], "would connect to -P80 of this very process"),
        (["-P80,90", "SERVER=tcprelay://127.0.0.1:+10"], "would connect to -P80,90 of this very"),
    ] {
        let message = refused(&words);
        assert!(message.contains(wanted), "{message}");
    }
}

/// By far the commonest line: a proxy for clients of `-P`.
#[test]
fn proxies_without_a_tunnel() {
    for word in ["http", "socks", "SOCKS4", "socks5", "telnet", "ftp"] {
        let plan = run(&["-P8080", &format!("SERVER={word}")]);
        let proxy = Proxy::of_word(&word.to_ascii_lowercase()).expect("a proxy's word");
        assert_eq!((&plan.link, ways(&plan)), (&LinkPlan::Loopback, vec![ExitKind::Proxy(proxy)]));
        assert_eq!((plan.entrances.len(), plan.entrances[0].bind.port), (1, 8080));
        assert_eq!(plan.notices, [""; 0]);
    }
    let plan = run(&[
        "-P127.0.0.1:8080,1080",
        "SERVER=http:-:-P8080",
        "SERVER=socks5:-:10.0.0.0/8",
        "SERVER=ftp://h",
        "PERMIT=http:*:*",
    ]);
    let shown = show::plan(&plan);
    for line in [
        "link        none: proxies alone",
        "entrances   127.0.0.1:8080",
        "exits       1. http proxy: where each client asks to go  for -P8080",
        "            2. socks5 proxy: where each client asks to go  for 10.0.0.0/8",
        "            3. ftp://h:21, data connections too  for everybody",
        "permits     http to *  for *",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no `{line}` in\n{shown}");
    }
    for absent in ["SockMux", "hold", "keepalive", "acc "] {
        assert!(!shown.contains(absent), "{absent} in\n{shown}");
    }
    // With a persistent connection they are exits, and have to be marked as such.
    for (words, wanted) in [
        (&["SERVER=http"][..], "SERVER=http: there is no entrance for its clients"),
        (
            &["-P1/udp", "SERVER=socks"],
            "clients of a proxy come in by TCP, and -P1/udp takes in UDP",
        ),
        (
            &["-P1", "PORT=2", "SERVER=http"],
            "without a tunnel, which PORT=2 is about; leave PORT=2",
        ),
        (&["-P1", "SERVER=http", "DEST=h:1"], "write SERVER=http,-in to make it an exit"),
        (&["-P1", "SERVER=http", "SERVER=sockmux"], "which SERVER=sockmux is about"),
        (&["SERVER=sockmux://h:1", "SERVER=socks"], "which SERVER=sockmux://h:1 is about"),
        (&["-P1", "SERVER=http", "SERVER=tcprelay://h:1"], "which SERVER=http is about"),
        (&["-P1,1", "SERVER=http"], "are the same port"),
        (&["-P1", "SERVER=http", "AUTHORIZER=-list{a:b}:socks"], "applies to no proxy"),
        (&["-P1", "SERVER=ftp://h", "PERMIT=http:*:10.0.0.1"], "it has no effect"),
        (&["-P1", "SERVER=ftp://"], "`ftp://` names no server"),
    ] {
        let message = refused(words);
        assert!(message.contains(wanted), "{words:?}: {message}");
    }
}

#[test]
fn ftp_servers_and_the_ftp_proxy() {
    let plan = run(&[
        "-P1",
        "SERVER=ftp://h,-in:-:-P21",
        "SERVER=ftp://[::1]:2121,-in:-:-P2121",
        "SERVER=ftps://h,-in:-:-P990",
        "DEST=h:21:-P22",
        "SERVER=ftp,-in",
        "PERMIT=ftp:10.0.0.0/8:*",
    ]);
    let at = |host: &str, port| Target { host: host.into(), port };
    let server = |port| ExitKind::Server { target: at("h", port), transport: Transport::Tcp };
    let wanted = [
        ExitKind::Ftp(at("h", 21)),
        ExitKind::Ftp(at("::1", 2121)),
        server(990),
        server(21),
        ExitKind::Proxy(Proxy::Ftp),
    ];
    assert_eq!(ways(&plan), wanted);
    assert_eq!(plan.permits[0].protocols, Some(vec![Proxy::Ftp]));
    let notice = "SERVER=ftps://h,-in:-:-P990 carries FTP commands only";
    assert!(plan.notices.iter().any(|said| said.starts_with(notice)), "{:?}", plan.notices);
    assert_eq!(plan.notices.len(), 1);
    let shown = show::plan(&plan);
    for line in [
        "exits       1. ftp://h:21, data connections too  for -P21",
        "            2. ftp://[::1]:2121, data connections too  for -P2121",
        "            3. ftps://h:990  for -P990",
        "            5. ftp proxy: where each client asks to go  for everybody",
        "permits     ftp to 10.0.0.0/8  for *",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no `{line}` in\n{shown}");
    }
}

#[test]
fn ftp_clients_are_judged_where_they_come_in() {
    let plan = run(&["-P1", "PORT=21", "PERMIT=ftp:127.0.0.1:*"]);
    assert_eq!(plan.notices, [""; 0]);
    let shown = show::plan(&plan);
    assert!(shown.contains("permits     ftp to 127.0.0.1  for *"), "{shown}");
    assert_eq!(run(&["-P1", "PORT=21", "PERMIT=*:*:*"]).notices, [""; 0]);
    for words in
        [&["-P1", "PORT=21", "PERMIT=http:*:*"][..], &["-P1", "DEST=h:1", "PERMIT=ftp:*:*"]]
    {
        let message = refused(words);
        assert!(message.contains("it has no effect"), "{message}");
    }
}

/// A list of clients without effect may be the only protection, so it is an error.
#[test]
fn permits_that_would_have_no_effect_are_refused() {
    for words in [
        &["-P1", "SERVER=tcprelay://h:1", "PERMIT=http:*:10.0.0.0/8"][..],
        &["-P1", "SERVER=tcprelay://h:1", "PERMIT=udprelay:*:10.0.0.0/8"],
        &["-P1/udp", "SERVER=udprelay://h:1", "PERMIT=tcprelay:*:10.0.0.0/8"],
        &["-P1", "DEST=h:1", "PERMIT=telnet,socks:*:10.0.0.0/8"],
        &["-P1", "SERVER=telnet://h,-in", "PERMIT=tcprelay:*:10.0.0.0/8"],
        // Clients of entrances are admitted by the peer's exits, or by RELIABLE=.
        &["-P1", "PORT=1-2", "PERMIT=*:*:10.0.0.0/8"],
        &["-P1", "PORT=unix:/a", "PERMIT=*:*:10.0.0.0/8"],
    ] {
        let message = refused(words);
        assert!(message.contains("it has no effect"), "{words:?}: {message}");
        assert!(message.contains("RELIABLE=hosts"), "{words:?}: {message}");
    }
    for words in [
        &["-P1", "SERVER=tcprelay://h:1", "PERMIT=tcprelay,http:*:10.0.0.0/8"][..],
        &["-P1/udp", "SERVER=udprelay://h:1", "PERMIT=*:*:10.0.0.0/8"],
        &["-P1", "DEST=h:1", "PERMIT=*:*:10.0.0.0/8", "PERMIT=tcprelay:*:-P80"],
        &["-P1", "SERVER=ftp://h,-in:-:-P21", "SERVER=exec:cat,-in", "PERMIT=ftp,exec:*:-P7"],
    ] {
        let plan = run_with(words, "");
        assert_eq!(plan.notices, [""; 0], "{words:?}");
        assert!(show::plan(&plan).contains("   PERMIT= lets in "), "{}", show::plan(&plan));
    }
}

#[test]
fn proxy_headers() {
    let plan = run(&[
        "-P1",
        "PORT=80?proxy=accept,81,h:90-91?proxy=accept",
        "DEST=h:80?proxy=v1:-P80",
        "SERVER=http://h?proxy=v2,-in:-:-P81",
        "DEST=unix:/x?proxy=v2:-P90",
        "DEST=h:80",
    ]);
    let accept: Vec<bool> = plan.entrances.iter().map(|entrance| entrance.proxy_header).collect();
    assert_eq!(accept, [true, false, true, true]);
    let headers: Vec<_> = plan.exits.iter().map(|exit| exit.proxy_header).collect();
    assert_eq!(
        headers,
        [Some(ProxyHeader::V1), Some(ProxyHeader::V2), Some(ProxyHeader::V2), None]
    );
    // In the foreground form -P is an entrance.
    let plan = run(&["-Fsockmux", "-A1", "-P80?proxy=accept"]);
    assert!(plan.entrances[0].proxy_header);
}

#[test]
fn the_plan_is_shown() {
    let shown = show::plan(&run(&[
        "-P9000",
        "PORT=80,81,82?proxy=accept",
        "PORT=unix:/run/a?mode=660&proxy=accept",
        "DEST=unix:/run/c:-P80",
        "DEST=h:-?proxy=v2:-P81",
        "DEST=[::1]:+1000:-P82",
        "SERVER=exec:cat -n,-in",
    ]));
    for line in [
        "entrances   *:80-81",
        "            *:82, each client behind a PROXY header",
        "            unix:/run/a (mode 0660), each client behind a PROXY header",
        "exits       1. unix:/run/c  for -P80",
        "            2. tcprelay://h:the entrance's port  for -P81, told by a PROXY header, version 2",
        "            3. tcprelay://[::1]:the entrance's port +1000  for -P82",
        "            4. exec:cat -n  for everybody",
        "            ask       30 s      for what a client has to say first",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no `{line}` in\n{shown}");
    }
}
