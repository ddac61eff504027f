//! The manual's examples over TCP (the others are in `links`), and the command line in general.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sockmux_uring::cli::error::Failure;
use sockmux_uring::cli::files::{Disk, Files};
use sockmux_uring::cli::invocation::{self, Command, Invocation, LogFormat};
use sockmux_uring::cli::plan::{
    Bind, Caller, Entrance, Exit, ExitKind, LinkPlan, Maxima, Plan, Proxy, Target, Transport,
};
use sockmux_uring::cli::show;
use sockmux_uring::policy::routing;

use crate::relays::shown;

/// One file, `conf`.
struct OneFile(&'static str);

impl Files for OneFile {
    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<Vec<u8>> {
        assert_eq!(path, Path::new("conf"));
        Ok(self.0.into())
    }
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    if name == "office" {
        Ok(vec![IpAddr::from([10, 1, 1, 1])])
    } else {
        Err(io::Error::other("no such name"))
    }
}

fn invoke(args: &[&str], file: &'static str) -> Result<Invocation, Failure> {
    let args = ["sockmux-uring"].iter().chain(args).map(OsString::from);
    invocation::parse(args, &OneFile(file), &mut lookup)
}

pub(crate) fn run(args: &[&str]) -> Plan {
    match invoke(args, "").unwrap_or_else(|failure| panic!("{args:?}: {failure}")).command {
        Command::Run(plan) => plan,
        other => panic!("{args:?}: {other:?}"),
    }
}

pub(crate) fn bind(host: &str, port: u16) -> Bind {
    Bind { host: (!host.is_empty()).then(|| host.to_owned()), port }
}

fn listen(host: &str, port: u16) -> LinkPlan {
    LinkPlan::Listen(vec![bind(host, port)])
}

fn connect(host: &str, port: u16) -> LinkPlan {
    LinkPlan::Connect(Target { host: host.into(), port })
}

fn entrance(host: &str, port: u16) -> Entrance {
    Entrance {
        bind: bind(host, port),
        transport: Transport::Tcp,
        proxy_header: false,
        peers: Vec::new(),
    }
}

fn udp_entrance(host: &str, port: u16) -> Entrance {
    Entrance { transport: Transport::Udp, ..entrance(host, port) }
}

/// Exits as `(protocol, host, port, host list)`.
fn exits(plan: &Plan) -> Vec<(&str, &str, u16, String)> {
    let list = |exit: &Exit| exit.clients.as_ref().map(ToString::to_string).unwrap_or_default();
    let exits = plan.exits.iter();
    exits
        .map(|exit| {
            let Target { host, port } = exit.target().expect("a server");
            (&*exit.protocol, &**host, *port, list(exit))
        })
        .collect()
}

#[test]
fn example_1_both_ways() {
    let x = run(&["SERVER=sockmux", "-PhostX:9000", "PORT=9023", "SERVER=telnet://hostX,-in"]);
    assert_eq!(x.link, listen("hostX", 9000));
    assert_eq!(x.entrances, [entrance("", 9023)]);
    assert_eq!(exits(&x), [("telnet", "hostX", 23, String::new())]);
    assert_eq!(x.exits[0].source, "SERVER=telnet://hostX,-in");
    assert_eq!(x.notices, [""; 0]);

    let y = run(&["SERVER=sockmux://hostX:9000", "PORT=9023", "SERVER=telnet://hostY,-in"]);
    assert_eq!(y.link, connect("hostX", 9000));
    assert_eq!(y.entrances, [entrance("", 9023)]);
    assert_eq!(exits(&y), [("telnet", "hostY", 23, String::new())]);
}

#[test]
fn example_2_one_way() {
    let x = run(&["SERVER=sockmux", "-PhostX:9000", "SERVER=telnet://hostX,-in"]);
    assert_eq!((x.link.clone(), x.entrances.len()), (listen("hostX", 9000), 0));
    assert_eq!(exits(&x), [("telnet", "hostX", 23, String::new())]);

    let y = run(&["SERVER=sockmux://hostX:9000", "PORT=hostY:9023"]);
    assert_eq!((y.link, y.entrances), (connect("hostX", 9000), vec![entrance("hostY", 9023)]));
    assert_eq!(y.exits.len(), 0);
}

#[test]
fn example_3_to_a_proxy() {
    let x = run(&["SERVER=sockmux", "-PhostX:9000", "PORT=hostX:9023"]);
    assert_eq!((x.link, x.entrances), (listen("hostX", 9000), vec![entrance("hostX", 9023)]));

    let y = run(&["SERVER=sockmux://hostX:9000", "SERVER=telnet,-in"]);
    assert_eq!(y.link, connect("hostX", 9000));
    let Exit { protocol, way, .. } = &y.exits[0];
    assert_eq!((&**protocol, way), ("telnet", &ExitKind::Proxy(Proxy::Telnet)));
}

#[test]
fn example_9_with_proxies() {
    let y = run(&[
        "SERVER=sockmux://hostX:9000",
        "SERVER=telnet,-in:-:-P8023",
        "SERVER=http,-in:-:-P8080",
        "SERVER=socks5,-in",
        "PERMIT=http,socks:192.168.0.0/16:*",
        "PERMIT=*:10.0.0.1:-P8023",
    ]);
    let way = |port| {
        let caller = Caller { client: None, entrance_port: Some(port) };
        routing::choose(&y.exits, &caller, None).map(|exit| exit.way.clone())
    };
    assert_eq!(way(8023), Some(ExitKind::Proxy(Proxy::Telnet)));
    assert_eq!(way(8080), Some(ExitKind::Proxy(Proxy::Http)));
    assert_eq!(way(1080), Some(ExitKind::Proxy(Proxy::Socks5)));
    assert_eq!(y.notices, [""; 0]);
    let shown = show::plan(&y);
    for line in [
        "exits       1. telnet proxy: where each client asks to go  for -P8023",
        "permits     http, socks to 192.168.0.0/16  for *",
        "            every proxy to 10.0.0.1  for -P8023",
        "ask       30 s ",
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
}

#[test]
fn example_4_any_service() {
    let x = run(&["SERVER=sockmux://hostY:9000", "PORT=hostX:111"]);
    assert_eq!((x.link, x.entrances), (connect("hostY", 9000), vec![entrance("hostX", 111)]));

    let y = run(&["SERVER=sockmux", "-PhostY:9000", "DEST=hostT:111"]);
    assert_eq!(y.link, listen("hostY", 9000));
    assert_eq!(exits(&y), [("tcprelay", "hostT", 111, String::new())]);
}

#[test]
fn example_5_udp_over_tcp() {
    let x = run(&["SERVER=sockmux://hostY:9000", "PORT=hostX:53/udp"]);
    assert_eq!((x.link, x.entrances), (connect("hostY", 9000), vec![udp_entrance("hostX", 53)]));

    let y = run(&["SERVER=sockmux", "-PhostY:9000", "DEST=hostU:53/udp"]);
    assert_eq!(y.link, listen("hostY", 9000));
    assert_eq!(exits(&y), [("udprelay", "hostU", 53, String::new())]);
    assert_eq!(y.exits[0].transport(), Transport::Udp);
    // The long form of the same.
    let long = run(&["-PhostY:9000", "SERVER=udprelay://hostU:53,-in"]);
    assert_eq!((exits(&long), long.exits[0].transport()), (exits(&y), Transport::Udp));
}

#[test]
fn tcp_and_udp_share_numbers_and_hide_nothing_of_each_other() {
    let plan = run(&[
        "-P9000",
        "PORT=53,53/udp,9000/udp",
        "DEST=u:53/udp",
        "DEST=t:53",
        "SERVER=dns://v/udp,-in:-:-P53",
        "DEST=w:1",
    ]);
    assert_eq!(plan.entrances, [entrance("", 53), udp_entrance("", 53), udp_entrance("", 9000)]);
    assert_eq!(
        plan.notices,
        [
            "SERVER=dns://v/udp,-in:-:-P53 is never used: DEST=u:53/udp stands before it and \
             takes every UDP flow",
            "DEST=w:1 is never used: DEST=t:53 stands before it and takes every stream",
        ]
    );
    let caller = Caller { client: None, entrance_port: Some(53) };
    let to = |transport| {
        routing::choose(&plan.exits, &caller, transport)
            .and_then(Exit::target)
            .map(|target| target.host.as_str())
    };
    assert_eq!(to(Some(Transport::Tcp)), Some("t"));
    assert_eq!(to(Some(Transport::Udp)), Some("u"));
    assert_eq!(to(None), Some("u"));
    // An entrance for UDP is none that a connector could come in by.
    run(&["SERVER=sockmux://127.0.0.1:9000", "PORT=9000/udp"]);
}

#[test]
fn example_9_several_ports() {
    let x = run(&["-P:9000", "PORT=8023,8080"]);
    assert_eq!(x.entrances, [entrance("", 8023), entrance("", 8080)]);

    let y = run(&[
        "SERVER=sockmux://hostX:9000",
        "SERVER=telnet://hostT,-in:-:-P8023",
        "SERVER=http://hostW,-in:-:-P8080",
    ]);
    assert_eq!(
        exits(&y),
        [("telnet", "hostT", 23, "-P8023".into()), ("http", "hostW", 80, "-P8080".into())]
    );
    assert_eq!(y.notices, [""; 0]);
    let to = |port| {
        let caller = Caller { client: None, entrance_port: Some(port) };
        routing::choose(&y.exits, &caller, None).and_then(Exit::target).map(|target| target.port)
    };
    assert_eq!([to(8023), to(8080), to(22)], [Some(23), Some(80), None]);
}

#[test]
fn every_way_to_write_the_receptor() {
    for (args, wanted) in [
        (&["-P9000"][..], listen("", 9000)),
        (&["-P:9000"], listen("", 9000)),
        (&["-P", "9000"], listen("", 9000)),
        (&["-P", ":9000"], listen("", 9000)),
        (&["-Phost:9000"], listen("host", 9000)),
        (&["-P127.0.0.1:9000"], listen("127.0.0.1", 9000)),
        (&["-P[::1]:9000"], listen("::1", 9000)),
        (&["-P", "[::1]:9000"], listen("::1", 9000)),
        (&["-P__1:9000"], listen("::1", 9000)),
        (&["-P0"], listen("", 0)),
        (&["-P9000,h:9001"], LinkPlan::Listen(vec![bind("", 9000), bind("h", 9001)])),
        (&["-P9000", "-v", "-P9001"], LinkPlan::Listen(vec![bind("", 9000), bind("", 9001)])),
        (&["-vP9000"], listen("", 9000)),
    ] {
        let args = [args, &["DEST=127.0.0.1:5432"]].concat();
        assert_eq!(run(&args).link, wanted, "{args:?}");
    }
}

#[test]
fn options_and_parameters_stand_in_any_order() {
    let args = ["PORT=1", "-v", "--log", "json", "DEST=h:2", "-P:9000", "--check", "-vv", "PORT=3"];
    for turn in 0..args.len() {
        let mut args = args.to_vec();
        // The option with a value of its own must stay together.
        let log = args.remove(2);
        args[2] = "--log=json";
        assert_eq!(log, "--log");
        let turn = turn % args.len();
        args.rotate_left(turn);
        let invocation = invoke(&args, "").unwrap();
        assert_eq!((invocation.verbosity, invocation.log), (3, LogFormat::Json));
        let Command::Check(plan) = invocation.command else { panic!("{args:?}") };
        assert_eq!((plan.entrances.len(), plan.exits.len()), (2, 1));
    }
}

#[test]
fn a_file_stands_for_its_lines() {
    let file = "# the office end\n-P [::1]:9000\n\nSERVER=\"telnet://hostX,-in\"\nPORT=9023\n\
                -v\n--log json\nTIMEOUT=con:5,io:1h\nSOXCONF=packsize:1k\nSOXCONF=noconndata\n";
    let invocation = invoke(&["+=conf", "PORT=9024", "--log=text"], file).unwrap();
    assert_eq!((invocation.verbosity, invocation.log), (1, LogFormat::Text));
    let Command::Run(plan) = invocation.command else { panic!() };
    assert_eq!(plan.link, listen("::1", 9000));
    assert_eq!(plan.entrances, [entrance("", 9023), entrance("", 9024)]);
    assert_eq!(exits(&plan), [("telnet", "hostX", 23, String::new())]);
    assert_eq!(plan.timeouts.connect, Some(Duration::from_secs(5)));
    assert_eq!(plan.timeouts.io, Some(Duration::from_secs(3600)));
    assert_eq!((plan.soxconf.packet_bytes, plan.soxconf.first_data), (1024, false));
}

#[test]
fn files_of_the_machine_name_each_other_by_relative_paths() {
    let folder = std::env::temp_dir().join(format!("sockmux-params-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("main.conf", "-P9000\n+=sub/exits.conf\n");
    write("sub/exits.conf", "DEST=127.0.0.1:1\n");
    write("loop.conf", "+=sub/back.conf\n");
    write("sub/back.conf", "\n+=../loop.conf\n");

    let parse = |name: &str| {
        let include = format!("+={}", folder.join(name).display());
        invocation::parse(["sockmux-uring".into(), include.into()], &Disk, &mut lookup)
    };
    let Command::Run(plan) = parse("main.conf").unwrap().command else { panic!() };
    assert_eq!(plan.exits.len(), 1);
    let looped = parse("loop.conf").unwrap_err().to_string();
    assert!(
        looped.contains("sub/back.conf:2: +=../loop.conf: the file includes itself"),
        "{looped}"
    );
    let folder_itself = parse("sub").unwrap_err().to_string();
    assert!(folder_itself.contains("cannot read"), "{folder_itself}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn who_may_use_an_exit() {
    let plan = run(&[
        "-P9000",
        "DEST=a:1:10.0.0.0/8,!10.0.0.5",
        "DEST=b:2:-:-P[::1]:8023",
        "SERVER=tcprelay://[::1]:3,-in:-:office,2001_db8__/32",
    ]);
    let to = |client: &str, entrance_port| {
        let caller = Caller { client: client.parse().ok(), entrance_port: Some(entrance_port) };
        routing::choose(&plan.exits, &caller, None).and_then(Exit::target).map(|target| target.port)
    };
    assert_eq!(to("10.0.0.4", 8023), Some(1));
    assert_eq!(to("10.0.0.5", 8023), Some(2));
    assert_eq!(to("10.0.0.5", 80), None);
    assert_eq!(to("2001:db8::9", 80), Some(3));
    let office = run(&["-P9000", "DEST=c:3:office"]);
    assert!(office.exits[0].clients.is_some());
}

#[test]
fn demo_help_and_version() {
    assert!(matches!(invoke(&["demo"], "").unwrap().command, Command::Demo));
    let verbose = invoke(&["-v", "demo"], "").unwrap();
    assert!(matches!(verbose.command, Command::Demo) && verbose.verbosity == 1);
    let Command::Print(help) = invoke(&["--help"], "").unwrap().command else { panic!() };
    for part in [
        "sockmux-uring demo",
        "-P[HOST]:PORT",
        "PORT=9023",
        "SERVER=sockmux://hostX:9000",
        "DEST=hostT:111",
        "SERVER=tcprelay://hostW:80",
        "PORT=hostX:53/udp",
        "DEST=hostU:53/udp",
        "-P:53/udp SERVER=udprelay://hostU:53",
        "udpflows:N",
        "ports:FIRST-LAST",
        "SERVER=PROXY,-in",
        "PERMIT=",
        "AUTHORIZER=",
        ",-in:-:-P8023",
        "SERVER=sockmux:commin@com0 SERVER=sockmux:commout@com1",
        "SERVER=sockmux:comm@/dev/ttyUSB0?baud=921600",
        "SERVER=\"sockmux:proc@ssh hostY sockmux-uring -Fsockmux -Q5432\"",
        "-Fsockmux [-A | -C | -I -O | -X]",
        "Exit codes:",
        "SIGTERM",
        "--check",
        "+=FILE",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
    let Command::Print(version) = invoke(&["--version"], "").unwrap().command else { panic!() };
    assert_eq!(version.trim(), format!("sockmux-uring {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_plan_can_be_read() {
    let plan = run(&[
        "-P[::1]:9000",
        "PORT=9023,9100-9109,h:9110,0,53-54/udp",
        "DEST=hostT:111:10.0.0.0/8,-P8023",
        "DEST=hostT:112:!office",
        "DEST=[::1]:53/udp",
        "DEST=[::1]:80",
        "DEST=late:1",
        "TIMEOUT=con:2m",
        "SOXCONF=crypt:opt",
    ]);
    let wanted = "\
link        receptor: accept on [::1]:9000
            not encrypted: it stays on this machine
entrances   *:9023
            *:9100-9109
            h:9110
            *:0 (the kernel chooses)
            *:53-54/udp
exits       1. tcprelay://hostT:111  for 10.0.0.0/8,-P8023
            2. tcprelay://hostT:112  for !office
               office is now 10.1.1.1
            3. udprelay://[::1]:53/udp  for everybody
            4. tcprelay://[::1]:80  for everybody
            5. tcprelay://late:1  for everybody
clients     this machine and its networks (.localnet, as RELIABLE= is not given)
            of the peer's streams: everybody
times       acc       5 s       for the peer's hello
            con       120 s     for a connect to a server
            lin       30 s      for an answer after one side has ended
            io        never     without data, then the stream is reset
            hold      30 s      for the persistent connection, then clients are reset
            keepalive 30 s      of silence, then the peer is asked
            drain     7 s       for open streams after SIGTERM
            udp       180 s     without datagrams, then a UDP flow is forgotten
            resume    60 s      for another persistent connection when it broke, then its streams are reset
protocol    SockMux 1 where the peer offers it too, else 0.3
packets     0.3: at most 16384 bytes, with first data in CONNECT
congestion  auto: a plain one on short paths, the system's on long ones
bulk        auto: spliced where that pays, else copied
udp flows   at most 4096; the one silent for longest makes room for a new one
privileges  no core dumps, no new privileges, no commands, files only to look names up
notices     DEST=hostT:111:10.0.0.0/8,-P8023 lets in";
    let shown = shown(&plan);
    assert!(shown.starts_with(wanted), "{shown}");
    assert!(shown.contains("DEST=late:1 is never used: DEST=[::1]:80 stands before it"), "{shown}");
    assert!(shown.contains("SOXCONF=crypt:opt has no effect"), "{shown}");

    let connector = show::plan(&run(&["SERVER=sockmux://hostX:9000", "PORT=1"]));
    assert!(connector.starts_with("link        connector: connect to hostX:9000"), "{connector}");
    assert!(connector.contains("exits       none\n") && !connector.contains("notices"));
}

#[test]
fn who_may_connect() {
    let plan = run(&[
        "-P9000",
        "PORT=8023",
        "RELIABLE=10.0.0.0/8,*.example.org",
        "RELIABLE=!10.0.0.5",
        "MAXIMA=conpch:5,delegated:100",
    ]);
    let permits = |client: &str| {
        let caller = Caller { client: client.parse().ok(), entrance_port: Some(8023) };
        plan.reliable.as_ref().is_some_and(|list| list.permits(&caller))
    };
    assert_eq!(["10.0.0.4", "10.0.0.5", "11.0.0.1"].map(permits), [true, false, false]);
    assert_eq!(plan.maxima, Maxima { per_client: Some(5), together: Some(100), services: None });
    let shown = show::plan(&plan);
    for line in [
        "clients     10.0.0.0/8,*.example.org,!10.0.0.5\n",
        "            at most 5 streams of each at once\n",
        "            at most 100 streams of all at once\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let relay = run(&["-P80", "SERVER=tcprelay://h:1", "RELIABLE=10.0.0.1", "MAXIMA=conpch:5"]);
    assert!(relay.reliable.is_some());
    assert!(show::plan(&relay).contains("clients     10.0.0.1\n            at most 5 streams"));
}
