use super::*;
use crate::proxy_proto::tests::in_every_split;

fn telnet() -> Box<dyn Conversation> {
    Box::new(Telnet::new(TelnetConfig { banner_host: "relay".into() }))
}

fn connect(host: &str, port: u16) -> ProxyStep {
    ProxyStep::Connect(Target { host: host.into(), port })
}

fn to_client(text: &str) -> ProxyStep {
    ProxyStep::ToClient(text.into())
}

const GREETING: &str = "-- Telnet proxy at relay.\r\n\
                        -- Name a host, or a host and a port; \"quit\" ends.\r\n\
                        >> Host name: ";

/// The text to the client behind the greeting, and all steps.
fn asked(said: &[u8], failures: u32) -> (String, Vec<ProxyStep>) {
    let mut steps = in_every_split(&telnet, said, failures);
    let ProxyStep::ToClient(first) = steps.remove(0) else { panic!("no greeting") };
    let first = String::from_utf8_lossy(&first).into_owned();
    (first.strip_prefix(GREETING).expect("the greeting").to_owned(), steps)
}

#[test]
fn a_host_is_named_and_reached() {
    for (said, host, port) in [
        (&b"host\r\n"[..], "host", 23),
        (b"host 2323\r\0", "host", 2323),
        (b"hose\x08t\n", "host", 23),
        (b"[::1]:7\r\n", "::1", 7),
    ] {
        let (told, steps) = asked(said, 0);
        assert_eq!(told, "");
        let target = Target { host: host.into(), port };
        let connected = format!("-- Connected to {target}\r\n");
        let expected =
            [connect(host, port), to_client(&connected), ProxyStep::EndServer, ProxyStep::Pass];
        assert_eq!(steps, expected);
    }
}

#[test]
fn what_is_typed_ahead_and_all_options_reach_the_server() {
    let (told, steps) = asked(b"\xff\xfb\x1fh\r\nme\r\n\xff\xfb\x1f\xff\xfa\x1f", 0);
    assert_eq!(told, "\u{fffd}\u{fffd}\x1f", "the option is refused before");
    let expected = [
        connect("h", 23),
        to_client("-- Connected to h:23\r\n"),
        ProxyStep::ToServer(b"me\r\n\xff\xfb\x1f\xff\xfa\x1f".into()),
        ProxyStep::EndServer,
        ProxyStep::Pass,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn an_option_is_refused_while_it_asks() {
    let mut steps = Vec::new();
    telnet().from_client(b"\xff\xfd\x03\xff\xfb\x18\xff\xfe\x01\xff\xf6", &mut steps);
    assert_eq!(steps, [ProxyStep::ToClient(b"\xff\xfc\x03\xff\xfe\x18[Yes]\r\n".into())]);
}

#[test]
fn after_a_failure_it_asks_again_and_takes_what_was_typed_ahead() {
    let (_, steps) = asked(b"a\r\nb\r\nme\r\n", 1);
    let trouble = "!!!!!!!! Cannot connect to a:23: nobody listens\r\n>> Host name: ";
    let expected = [
        connect("a", 23),
        to_client(trouble),
        connect("b", 23),
        to_client("-- Connected to b:23\r\n"),
        ProxyStep::ToServer(b"me\r\n".into()),
        ProxyStep::EndServer,
        ProxyStep::Pass,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn the_third_failure_is_the_last() {
    let (_, steps) = asked(b"a\nb\nc\nd\n", 3);
    let trouble = |host| format!("!!!!!!!! Cannot connect to {host}:23: nobody listens\r\n");
    let expected = [
        connect("a", 23),
        to_client(&(trouble("a") + ">> Host name: ")),
        connect("b", 23),
        to_client(&(trouble("b") + ">> Host name: ")),
        connect("c", 23),
        to_client(&trouble("c")),
        ProxyStep::Note("telnet proxy gave up: Cannot connect to c:23: nobody listens".into()),
        to_client("-- Bye.\r\n"),
        ProxyStep::EndClient,
    ];
    assert_eq!(steps, expected);
}

#[test]
fn lines_that_name_no_host() {
    let (told, steps) = asked(b"\r\n u@h\r\nh 0\r\nquit\r\n", 0);
    let expected = ">> Host name: \
                    !!!!!!!! \"u@h\" is not a host; say: host, or: host port\r\n\
                    >> Host name: \
                    !!!!!!!! \"0\" is not a port; say a number, 1 to 65535\r\n\
                    >> Host name: \
                    -- Bye.\r\n";
    assert_eq!(told, expected);
    assert_eq!(steps, [ProxyStep::EndClient]);
    for end in [&b"exit\n"[..], b"\x04", b"\xff\xec"] {
        assert_eq!(asked(end, 0), ("-- Bye.\r\n".into(), vec![ProxyStep::EndClient]));
    }
    assert_eq!(asked(b"half a li", 0), (String::new(), vec![ProxyStep::EndClient]));
}

/// The last text to the client, after which the conversation has ended.
fn last_words(telnet: &mut dyn Conversation, said: &[u8]) -> String {
    let mut steps = Vec::new();
    telnet.from_client(said, &mut steps);
    assert_eq!(steps.pop(), Some(ProxyStep::EndClient));
    assert_eq!(steps.pop(), Some(to_client("-- Bye.\r\n")));
    assert!(matches!(steps.pop(), Some(ProxyStep::Note(_))));
    let Some(ProxyStep::ToClient(told)) = steps.pop() else { panic!("nothing was told") };
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
fn whoever_says_too_much_is_let_go() {
    let long = vec![b'x'; PROXY_HEAD_BYTES + 1];
    let why = "!!!!!!!! Too much was said without a host\r\n";
    assert_eq!(last_words(&mut *telnet(), &long), why);
    let subnegotiation = [b"\xff\xfa", &long[..]].concat();
    assert_eq!(last_words(&mut *telnet(), &subnegotiation), why);

    let mut connecting = telnet();
    let mut steps = Vec::new();
    connecting.from_client(b"h\r\n", &mut steps);
    connecting.from_client(&long[1..], &mut steps);
    assert_eq!(steps, [connect("h", 23)]);
    let why = "!!!!!!!! Too much was said before the server was connected\r\n";
    assert_eq!(last_words(&mut *connecting, b"x"), why);

    let told = last_words(&mut *telnet(), &[b'\n'; TELNET_PROMPTS_MAX as usize + 1]);
    assert_eq!(told.matches(">> Host name: ").count(), TELNET_PROMPTS_MAX as usize);
    assert!(told.ends_with("!!!!!!!! Asked often enough\r\n"));
}

#[test]
fn nothing_said_for_long_is_the_end() {
    let mut telnet = telnet();
    let mut steps = Vec::new();
    assert!(telnet.awaits_client());
    telnet.timed_out(&mut steps);
    let expected = [
        to_client("\r\n!!!!!!!! No host was named in time\r\n"),
        ProxyStep::Note("telnet proxy gave up: No host was named in time".into()),
        to_client("-- Bye.\r\n"),
        ProxyStep::EndClient,
    ];
    assert_eq!(steps, expected);
    assert!(!telnet.awaits_client());
}

#[test]
fn what_others_said_does_no_harm_to_a_terminal() {
    let mut telnet = telnet();
    let mut steps = Vec::new();
    telnet.from_client(b"h\n", &mut steps);
    steps.clear();
    telnet.connected(Err(Unreached::Other("a\x1b[2Jb".into())), &mut steps);
    let expected = "!!!!!!!! Cannot connect to h:23: a\\u{1b}[2Jb\r\n>> Host name: ";
    assert_eq!(steps, [to_client(expected)]);
}
