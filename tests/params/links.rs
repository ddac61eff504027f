//! Everything but TCP that carries the persistent connection: the manual's examples, and the
//! foreground form.

use sockmux_uring::cli::plan::{
    Bind, Device, Entrance, Exit, FlowControl, LineOptions, LinkPlan, Plan, Target, Transport,
};
use sockmux_uring::cli::show;

use crate::one_file::{run, run_with};

fn listen(host: &str, port: u16) -> LinkPlan {
    LinkPlan::Listen(vec![entrance(host, port).bind])
}

fn connect(host: &str, port: u16) -> LinkPlan {
    LinkPlan::Connect(Target { host: host.into(), port })
}

fn pair(input: &str, output: &str) -> LinkPlan {
    LinkPlan::Device(Device::Pair { input: input.into(), output: output.into() })
}

fn both_ways(path: &str, line: LineOptions) -> LinkPlan {
    LinkPlan::Device(Device::Both { path: path.into(), line })
}

fn entrance(host: &str, port: u16) -> Entrance {
    let host = (!host.is_empty()).then(|| host.to_owned());
    Entrance {
        bind: Bind { host, port },
        transport: Transport::Tcp,
        proxy_header: false,
        peers: Vec::new(),
    }
}

fn udp_entrance(port: u16) -> Entrance {
    Entrance { transport: Transport::Udp, ..entrance("", port) }
}

/// Exits as `(host, port)`.
fn exits(plan: &Plan) -> Vec<(&str, u16)> {
    let targets = plan.exits.iter().filter_map(Exit::target);
    targets.map(|target| (&*target.host, target.port)).collect()
}

#[test]
fn example_6_fifos() {
    let args = ["SERVER=sockmux:commin@com0", "SERVER=sockmux:commout@com1", "PORT=9023"];
    let one = run(&args);
    assert_eq!((one.link, one.entrances), (pair("com0", "com1"), vec![entrance("", 9023)]));
    let other = run(&["DEST=h:23", "SERVER=sockmux:commout@com0", "SERVER=sockmux:commin@com1"]);
    assert_eq!(other.link, pair("com1", "com0"));
    assert_eq!(exits(&other), [("h", 23)]);
}

#[test]
fn example_7_communication_ports() {
    for port in ["com1", "com2"] {
        let plan = run(&[&format!("SERVER=sockmux:comm@{port}"), "PORT=9023", "DEST=h:23"]);
        assert_eq!(plan.link, both_ways(port, LineOptions::default()));
        assert_eq!(plan.notices, [""; 0]);
    }
}

#[test]
fn example_8_external_command() {
    let plan = run(&["SERVER=sockmux:proc@connectCommand", "PORT=9023"]);
    assert_eq!(plan.link, LinkPlan::Command("connectCommand".into()));
    let long = "ssh hostY 'sockmux-uring -Fsockmux -Q5432 TIMEOUT=con:5,lin:3' 2>>log # ,-in";
    let plan = run(&["PORT=5432", &format!("SERVER=sockmux:proc@{long}")]);
    assert_eq!(plan.link, LinkPlan::Command(long.into()));
    let file = "SERVER=\"sockmux:proc@ssh hostY sockmux-uring -Fsockmux -Q5432\"";
    let plan = run_with(&["PORT=5432", "+=conf"], file);
    assert_eq!(plan.link, LinkPlan::Command("ssh hostY sockmux-uring -Fsockmux -Q5432".into()));
}

#[test]
fn the_foreground_form() {
    let xonxoff = LineOptions { flow: FlowControl::XonXoff, given: true, ..Default::default() };
    for (args, wanted) in [
        (&["-A9000"][..], listen("", 9000)),
        (&["-AhostX:9000"], listen("hostX", 9000)),
        (&["-A", "[::1]:9000"], listen("::1", 9000)),
        (&["SERVER=sockmux", "-A9000"], listen("", 9000)),
        (&["-C9000"], connect("localhost", 9000)),
        (&["-C:9000"], connect("localhost", 9000)),
        (&["-ChostX:9000"], connect("hostX", 9000)),
        (&["SERVER=sockmux://hostX:9000"], connect("hostX", 9000)),
        (&["-Icom0", "-Ocom1"], pair("com0", "com1")),
        (&["-O", "com1", "-I", "com0"], pair("com0", "com1")),
        (&["-Xcom1"], both_ways("com1", LineOptions::default())),
        (&["-Xcom1?flow=xonxoff"], both_ways("com1", xonxoff)),
        (&["SERVER=sockmux:proc@x"], LinkPlan::Command("x".into())),
        (&[], LinkPlan::Stdio),
    ] {
        for (before, behind) in
            [(&["-Fsockmux", "-P9023"][..], &[][..]), (&["-P9023"], &["-Fsockmux"])]
        {
            let plan = run(&[before, args, behind].concat());
            assert_eq!(plan.link, wanted, "{args:?}");
            assert_eq!(plan.entrances, [entrance("", 9023)], "{args:?}");
        }
    }
    let args = ["-v", "-Fsockmux", "-Q23", "-QhostY:80", "DEST=hostZ:81", "-P127.0.0.1:1,53/udp"];
    let more = ["PORT=2", "TIMEOUT=con:5", "SOXCONF=packsize:1k", "SERVER=http://h,-in"];
    let plan = run(&[&args[..], &more].concat());
    assert_eq!(plan.link, LinkPlan::Stdio);
    let wanted = [entrance("127.0.0.1", 1), udp_entrance(53), entrance("", 2)];
    assert_eq!(plan.entrances, wanted);
    assert_eq!(plan.soxconf.packet_bytes, 1024);
    assert_eq!(exits(&plan), [("localhost", 23), ("hostY", 80), ("hostZ", 81), ("h", 80)]);
    assert_eq!(plan.exits[0].source, "-Q23");

    let plan = run_with(&["+=conf"], "-Fsockmux\n-I com0\n-Ocom1\n-Q 23");
    assert_eq!((plan.link, plan.exits.len()), (pair("com0", "com1"), 1));
}

#[test]
fn links_can_be_read() {
    for (args, wanted) in [
        (
            &["SERVER=sockmux:commin@com0", "SERVER=sockmux:commout@com1"][..],
            "devices: input from com0, output to com1\n",
        ),
        (
            &["SERVER=sockmux:comm@com1?flow=rtscts&parity=even&stop=2&check=no"],
            "device: com1, input and output\n            if serial: 115200 baud, 8E2, flow control \
             by RTS and CTS, never checked\n",
        ),
        (&["SERVER=sockmux:proc@a b\x1b"], "command: run `a b\\u{1b}`, again for ever\n"),
        (&["-Fsockmux"], "standard input and output; ends with them\n"),
    ] {
        let shown = show::plan(&run(&[args, &["PORT=1"]].concat()));
        assert!(shown.starts_with(&format!("link        {wanted}")), "{shown}");
    }
    let shown = show::plan(&run(&["SERVER=sockmux:comm@com1?flow=xonxoff", "PORT=1"]));
    assert!(shown.contains("towards a SockMux 0.3 peer take flow=rtscts"), "{shown}");
}

/// An entrance port of the original's by another letter, where it is no exit of -Fsockmux.
#[test]
fn a_port_of_q_is_one_of_p() {
    let plan = run(&["-P9000", "-Q9001", "DEST=h:1"]);
    let anywhere = |port| Bind { host: None, port };
    assert_eq!(plan.link, LinkPlan::Listen(vec![anywhere(9000), anywhere(9001)]));
    assert!(plan.notices.iter().any(|notice| notice.contains("is -P9001")), "{:?}", plan.notices);
}

/// Anybody may connect to a receptor, and hold a place there for as long.
#[test]
fn a_receptor_waits_for_a_hello_less_long_than_a_connector() {
    for (args, wanted) in [
        (&["-P9000"][..], "5 s "),
        (&["-P9000", "TIMEOUT=acc:20"], "20 s"),
        (&["-P9000", "TIMEOUT=acc:15"], "15 s"),
        (&["SERVER=sockmux://hostX:9000"], "15 s"),
    ] {
        let shown = show::plan(&run(&[args, &["PORT=1"]].concat()));
        assert!(
            shown.contains(&format!("acc       {wanted}      for the peer's hello")),
            "{shown}"
        );
    }
}
