mod ports;

use super::*;
use crate::proxy_proto::Target;
use crate::proxy_proto::tests::in_every_split;

fn open() -> Box<dyn Conversation> {
    Box::new(Socks::new(SocksConfig::from(None)))
}

fn guarded() -> Box<dyn Conversation> {
    let users = [("me", "secret"), ("you", "")]
        .map(|(name, password)| User { name: name.into(), password: password.into() });
    Box::new(Socks::new(SocksConfig::from(Some(users.to_vec()))))
}

fn connect(host: &str, port: u16) -> ProxyStep {
    ProxyStep::Connect(Target { host: host.into(), port })
}

fn to_client(parts: &[&[u8]]) -> ProxyStep {
    ProxyStep::ToClient(parts.concat())
}

/// Our address towards the server, as the conversations of the tests are told, and none.
const OWN: &[u8] = &[198, 51, 100, 7, 0x9c, 0x40];
const NONE: &[u8] = &[0; 6];
const OWN_4: &[u8] = &[0, 90, 0x9c, 0x40, 198, 51, 100, 7];
const REJECTED_4: &[u8] = &[0, 91, 0, 0, 0, 0, 0, 0];

/// The steps of a request of SOCKS 5, behind the methods.
fn asked(request: &[u8], failures: u32) -> Vec<ProxyStep> {
    let steps = in_every_split(&open, &[b"\x05\x01\x00", request].concat(), failures);
    match &steps[0] {
        ProxyStep::ToClient(said) => assert_eq!(said[..2], [5, 0]),
        other => panic!("{other:?}"),
    }
    steps
}

#[test]
fn version_4_by_address_and_by_name() {
    for (request, target) in [
        (&b"\x04\x01\x1f\x90\x0a\x00\x00\x01\x00early"[..], connect("10.0.0.1", 8080)),
        (b"\x04\x01\x1f\x90\x0a\x00\x00\x01somebody\x00early", connect("10.0.0.1", 8080)),
        (b"\x04\x01\x00\x50\x00\x00\x00\x07me\x00example.org\x00early", connect("example.org", 80)),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00127.0.0.1\x00early", connect("127.0.0.1", 80)),
        (b"\x04\x01\x00\x50\x00\x00\x00\x00\x00early", connect("0.0.0.0", 80)),
    ] {
        let early = ProxyStep::ToServer(b"early".into());
        let expected = [target, to_client(&[OWN_4]), early, ProxyStep::EndServer, ProxyStep::Pass];
        assert_eq!(in_every_split(&open, request, 0), expected);
    }
}

#[test]
fn the_other_version_is_refused_in_its_own_terms() {
    let of = |versions| {
        move || {
            let config = SocksConfig { versions, ..SocksConfig::from(None) };
            Box::new(Socks::new(config)) as Box<dyn Conversation>
        }
    };
    let note = |version, other| {
        ProxyStep::Note(format!("SOCKS {version} is refused: the exit is for SOCKS {other}"))
    };
    let four = b"\x04\x01\x1f\x90\x0a\x00\x00\x01\x00";
    let refused = in_every_split(&of(Proxy::Socks5), four, 0);
    assert_eq!(refused, [to_client(&[REJECTED_4]), note(4, 5), ProxyStep::EndClient]);
    let five = b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50";
    let refused = in_every_split(&of(Proxy::Socks4), five, 0);
    assert_eq!(refused, [to_client(&[b"\x05\xff"]), note(5, 4), ProxyStep::EndClient]);
    for (versions, request) in [(Proxy::Socks4, &four[..]), (Proxy::Socks5, five)] {
        assert_eq!(in_every_split(&of(versions), request, 0).last(), Some(&ProxyStep::Pass));
    }
}

/// Users of SOCKS 5 alone are not required by SOCKS 4.
#[test]
fn version_4_is_refused_where_it_has_users() {
    let users = vec![User { name: "me".into(), password: "secret".into() }];
    for four_has_users in [true, false] {
        let make = || {
            let config = SocksConfig { four_has_users, ..SocksConfig::from(Some(users.clone())) };
            Box::new(Socks::new(config)) as Box<dyn Conversation>
        };
        let steps = in_every_split(&make, b"\x04\x01\x1f\x90\x0a\x00\x00\x01\x00", 0);
        let wanted = if four_has_users { ProxyStep::EndClient } else { ProxyStep::Pass };
        assert_eq!(steps.last(), Some(&wanted));
    }
}

#[test]
fn version_5_by_address_and_by_name() {
    let loopback = [&b"\x05\x01\x00\x04"[..], &[0; 15], b"\x01\x00\x50"].concat();
    let mapped = [&b"\x05\x01\x00\x04"[..], &[0; 10], b"\xff\xff\x7f\x00\x00\x01\x00\x50"].concat();
    for (request, target) in [
        (&b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"[..], connect("127.0.0.1", 80)),
        (&loopback, connect("::1", 80)),
        (&mapped, connect("127.0.0.1", 80)),
        (b"\x05\x01\x00\x03\x0bexample.org\x01\xbb", connect("example.org", 443)),
        (b"\x05\x01\x00\x03\x03::1\x01\xbb", connect("::1", 443)),
        (b"\x05\x01\x00\x03\x01h\x01\xbb", connect("h", 443)),
        // Something in the reserved byte.
        (b"\x05\x01\x09\x03\x01h\x01\xbb", connect("h", 443)),
    ] {
        let granted = to_client(&[b"\x05\x00\x00\x01", OWN]);
        let chosen = to_client(&[b"\x05\x00"]);
        let expected = [chosen, target, granted, ProxyStep::EndServer, ProxyStep::Pass];
        assert_eq!(asked(request, 0), expected);
    }
    let name = [b'n'; 250];
    let request = [&b"\x05\x01\x00\x05\x01\x00\x03\xfa"[..], &name, b"\x00\x01"].concat();
    let mut steps = Vec::new();
    open().from_client(&request, &mut steps);
    assert_eq!(steps[1], connect(std::str::from_utf8(&name).unwrap(), 1));
}

#[test]
fn user_and_password() {
    let steps = in_every_split(
        &guarded,
        b"\x05\x02\x00\x02\x01\x02me\x06secret\x05\x01\x00\x03\x01h\x00\x01early",
        0,
    );
    let expected = [
        to_client(&[b"\x05\x02\x01\x00"]),
        connect("h", 1),
        to_client(&[b"\x05\x00\x00\x01", OWN]),
        ProxyStep::ToServer(b"early".into()),
        ProxyStep::EndServer,
        ProxyStep::Pass,
    ];
    assert_eq!(steps, expected);
    for (message, note) in [
        (&b"\x01\x02me\x06secreT"[..], r#"SOCKS 5: user "me" refused"#),
        (b"\x01\x02me\x05secre", r#"SOCKS 5: user "me" refused"#),
        (b"\x01\x02me\x00", r#"SOCKS 5: user "me" refused"#),
        (b"\x01\x03you\x06secret", r#"SOCKS 5: user "you" refused"#),
        (b"\x01\x02m\n\x06secret", r#"SOCKS 5: user "m\n" refused"#),
        (b"\x01\x00\x00", r#"SOCKS 5: user "" refused"#),
        (b"\x05\x02me\x06secret", "5 is no version of its password message"),
    ] {
        let said = [b"\x05\x01\x02", message].concat();
        let note = match note.ends_with(" refused") {
            true => ProxyStep::WrongPassword(note.into()),
            false => ProxyStep::Note(note.into()),
        };
        let refused = [to_client(&[b"\x05\x02\x01\x01"]), note, ProxyStep::EndClient];
        assert_eq!(in_every_split(&guarded, &said, 0), refused);
    }
    // A password may be empty.
    let steps = in_every_split(&guarded, b"\x05\x01\x02\x01\x03you\x00", 0);
    assert_eq!(steps, [to_client(&[b"\x05\x02\x01\x00"]), ProxyStep::EndClient]);
}

#[test]
fn methods_that_will_not_do() {
    for (make, methods) in [
        (&open as &dyn Fn() -> _, &b"\x05\x01\x02"[..]),
        (&open, b"\x05\x00"),
        (&guarded, b"\x05\x01\x00"),
        (&guarded, b"\x05\x02\x00\x01"),
    ] {
        let steps = in_every_split(make, methods, 0);
        assert_eq!(steps[0], to_client(&[b"\x05\xff"]), "{methods:?}");
        assert_eq!(steps[2..], [ProxyStep::EndClient]);
    }
    let steps = in_every_split(&guarded, b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00", 0);
    let note = ProxyStep::Note("SOCKS 4 is refused: it has no passwords, and users are set".into());
    let refused = to_client(&[&[0, 93, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(steps, [refused, note, ProxyStep::EndClient]);
}

#[test]
fn requests_that_are_refused() {
    for (request, code, why) in [
        (&b"\x05\x04\x00\x03\x01h\x00\x01"[..], 7, "command 4 is not supported"),
        (b"\x05\x00\x00\x03\x00\x00\x01", 7, "command 0 is not supported"),
        (b"\x05\x01\x00\x02", 8, "addresses of kind 2 are not supported"),
        (b"\x05\x01\x00\x03\x00\x00\x01", 1, "\"\" is not a host"),
        (b"\x05\x01\x00\x03\x03a\x00b\x00\x01", 1, "\"a\\0b\" is not a host"),
        (b"\x05\x01\x00\x03\x05127.1\x00\x01", 1, "\"127.1\" is not a host"),
        (b"\x05\x01\x00\x03\x01h\x00\x00", 1, "port 0 of h cannot be connected to"),
        (b"\x04\x01\x00\x01", 1, "a request of version 4"),
    ] {
        let refused = to_client(&[&[5, 0, 5, code, 0, 1], NONE]);
        let note = ProxyStep::Note(format!("SOCKS 5: {why}"));
        assert_eq!(asked(request, 0), [refused, note, ProxyStep::EndClient]);
    }
    let long = [b'x'; 256];
    let long_user = [&b"\x04\x01\x00\x01\x7f\x00\x00\x01"[..], &long].concat();
    let long_host = [&b"\x04\x01\x00\x01\x00\x00\x00\x01\x00"[..], &long].concat();
    for (request, why) in [
        (&b"\x04\x00\x00\x01\x7f\x00\x00\x01\x00"[..], "command 0 is not supported"),
        (b"\x04\x01\x00\x00\x7f\x00\x00\x01\x00", "port 0 of 127.0.0.1 cannot be connected to"),
        (b"\x04\x01\x00\x01\x00\x00\x00\x01\x00\x00", "\"\" is not a host"),
        (b"\x04\x01\x00\x01\x00\x00\x00\x01\x00a b\x00", "\"a b\" is not a host"),
        (&long_user, "the user's name is longer than 255 bytes"),
        (&long_host, "the host's name is longer than 255 bytes"),
    ] {
        let note = ProxyStep::Note(format!("SOCKS 4: {why}"));
        let mut steps = Vec::new();
        open().from_client(request, &mut steps);
        assert_eq!(steps, [to_client(&[REJECTED_4]), note, ProxyStep::EndClient]);
    }
}

#[test]
fn something_else_than_socks_is_reset() {
    for first in [b'G', 0, 1, 6, 0xff] {
        let why = format!("neither SOCKS 4 nor 5: the first byte is {first:#04x}");
        assert_eq!(in_every_split(&open, &[first, b'E', b'T'], 0), [ProxyStep::Reset(why)]);
    }
}

#[test]
fn every_cause_has_its_reply() {
    let why = || "why".to_owned();
    for (cause, code) in [
        (Unreached::NotPermitted(why()), 2),
        (Unreached::NameNotFound(why()), 4),
        (Unreached::Refused(why()), 5),
        (Unreached::TimedOut(why()), 6),
        (Unreached::Other(why()), 1),
    ] {
        let version_5 = [&[5, code, 0, 1], NONE].concat();
        for (request, reply) in [
            (&b"\x05\x01\x00\x05\x01\x00\x03\x01h\x00\x01"[..], &version_5[..]),
            (b"\x04\x01\x00\x01\x7f\x00\x00\x01\x00", REJECTED_4),
        ] {
            let mut socks = open();
            let mut steps = Vec::new();
            socks.from_client(request, &mut steps);
            steps.clear();
            socks.connected(Err(cause.clone()), &mut steps);
            assert_eq!(steps, [to_client(&[reply]), ProxyStep::EndClient], "{cause:?}");
        }
    }
}

#[test]
fn our_address_towards_the_server_is_told() {
    for (own, version_5, version_4) in [
        ("10.0.0.1:258", &b"\x01\x0a\x00\x00\x01\x01\x02"[..], &b"\x01\x02\x0a\x00\x00\x01"[..]),
        ("[::ffff:10.0.0.1]:258", b"\x01\x0a\x00\x00\x01\x01\x02", b"\x01\x02\x0a\x00\x00\x01"),
        (
            "[2001:db8::1]:258",
            b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02",
            b"\x01\x02\0\0\0\0",
        ),
    ] {
        let own = own.parse().ok();
        let five = reply::request(Version::Five, Reply::Granted, own);
        assert_eq!(five, [b"\x05\x00\x00", version_5].concat());
        let four = reply::request(Version::Four, Reply::Granted, own);
        assert_eq!(four, [b"\x00\x5a", version_4].concat());
    }
}

#[test]
fn early_data_is_kept_within_its_bound() {
    let request = b"\x04\x01\x00\x01\x7f\x00\x00\x01\x00";
    let early = vec![b'x'; PROXY_HEAD_BYTES];
    let mut socks = open();
    let mut steps = Vec::new();
    socks.from_client(request, &mut steps);
    socks.from_client(&early, &mut steps);
    assert_eq!(steps, [connect("127.0.0.1", 1)]);
    socks.from_client(b"x", &mut steps);
    let why = "SOCKS 4: more data than is kept came before the answer";
    assert_eq!(
        steps[1..],
        [to_client(&[REJECTED_4]), ProxyStep::Note(why.into()), ProxyStep::EndClient]
    );
    let address = "127.0.0.1:1".parse().unwrap();
    socks.connected(Ok((address, address)), &mut steps);
    assert_eq!(steps.len(), 4, "it was too late");
}

#[test]
fn the_clock_runs_until_a_server_is_named() {
    let mut steps = Vec::new();
    for said in [&b""[..], b"\x04\x01", b"\x05", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01\x00"] {
        let mut socks = open();
        socks.from_client(said, &mut steps);
        assert!(socks.awaits_client(), "{said:?}");
        steps.clear();
        socks.timed_out(&mut steps);
        assert_eq!(steps, [ProxyStep::Reset("the client made no SOCKS request in time".into())]);
        assert!(!socks.awaits_client());
    }
    let mut socks = open();
    socks.from_client(b"\x04\x01\x00\x01\x7f\x00\x00\x01\x00", &mut steps);
    assert!(!socks.awaits_client());
    steps.clear();
    socks.timed_out(&mut steps);
    assert_eq!(steps, []);
}
