//! BIND and UDP ASSOCIATE.

use super::*;
use crate::proxy_proto::conversation::Answers;
use crate::proxy_proto::tests::answered_in_every_split;

/// The port that is opened, and who comes in by it, as the conversations of the tests are told.
const OPENED: &[u8] = &[203, 0, 113, 9, 0xc3, 0x50];
const GUEST: &[u8] = &[192, 0, 2, 1, 0, 20];

const ASSOCIATE: &[u8] = b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00";

/// What a request of 5 comes to, behind the methods, where the answers after so many fail.
fn after(successes: u32, request: &[u8]) -> Vec<ProxyStep> {
    let said = [b"\x05\x01\x00", request].concat();
    let answers = Answers { successes, failures: 1, ..Answers::default() };
    answered_in_every_split(&open, &said, answers)[1..].to_vec()
}

fn check(host: &str, port: u16) -> ProxyStep {
    ProxyStep::CheckHost(Target { host: host.into(), port })
}

fn listen(from: &str) -> ProxyStep {
    let from = from.parse().expect("an address");
    ProxyStep::ListenHere { request: 1, own: None, from, then: PortUse::BeServer }
}

fn associate() -> ProxyStep {
    ProxyStep::OpenPort { request: 1, lead: Lead::SocksDatagrams }
}

fn note(text: &str) -> ProxyStep {
    ProxyStep::Note(text.into())
}

#[test]
fn bind_lets_the_host_in_that_was_named() {
    for (request, target) in [
        (&b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x15early"[..], check("10.0.0.1", 21)),
        (b"\x05\x02\x00\x03\x0bexample.org\x00\x15early", check("example.org", 21)),
        (b"\x05\x02\x00\x03\x01h\x00\x00early", check("h", 0)),
    ] {
        let answers = to_client(&[b"\x05\x00\x00\x01", OPENED, b"\x05\x00\x00\x01", GUEST]);
        let early = ProxyStep::ToServer(b"early".into());
        let expected =
            [target, listen("192.0.2.1"), answers, early, ProxyStep::EndServer, ProxyStep::Pass];
        assert_eq!(asked(request, 0)[1..], expected);
    }
    for (request, target) in [
        (&b"\x04\x02\x00\x15\x0a\x00\x00\x01me\x00"[..], check("10.0.0.1", 21)),
        (b"\x04\x02\x00\x15\x00\x00\x00\x07\x00example.org\x00", check("example.org", 21)),
    ] {
        let opened = b"\x00\x5a\xc3\x50\xcb\x00\x71\x09";
        let answers = to_client(&[opened, b"\x00\x5a\x00\x14\xc0\x00\x02\x01"]);
        let expected =
            [target, listen("192.0.2.1"), answers, ProxyStep::EndServer, ProxyStep::Pass];
        assert_eq!(in_every_split(&open, request, 0), expected);
    }
}

#[test]
fn bind_without_a_host_is_refused() {
    let note = |version| note(&format!("SOCKS {version}: BIND needs the host that will connect"));
    let any_v6 = [&b"\x05\x02\x00\x04"[..], &[0; 16], b"\x00\x15"].concat();
    for request in [
        &b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x15"[..],
        b"\x05\x02\x00\x03\x00\x00\x15",
        b"\x05\x02\x00\x03\x070.0.0.0\x00\x15",
        &any_v6,
    ] {
        let refused = to_client(&[b"\x05\x00\x05\x02\x00\x01", NONE]);
        assert_eq!(asked(request, 0), [refused, note('5'), ProxyStep::EndClient], "{request:?}");
    }
    for request in
        [&b"\x04\x02\x00\x15\x00\x00\x00\x00\x00"[..], b"\x04\x02\x00\x15\x00\x00\x00\x01\x00\x00"]
    {
        let steps = in_every_split(&open, request, 0);
        assert_eq!(
            steps,
            [to_client(&[REJECTED_4]), note('4'), ProxyStep::EndClient],
            "{request:?}"
        );
    }
}

#[test]
fn bind_that_fails() {
    let request = b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x15early";
    let (checked, listens) = (check("10.0.0.1", 21), listen("192.0.2.1"));
    // The host may not be reached: who said so has logged it.
    let refused = to_client(&[b"\x05\x05\x00\x01", NONE]);
    assert_eq!(after(0, request), [checked.clone(), refused, ProxyStep::EndClient]);
    let refused = to_client(&[b"\x05\x01\x00\x01", NONE]);
    let why = note("SOCKS 5: no port for BIND: no port");
    let expected = [checked.clone(), listens.clone(), refused, why, ProxyStep::EndClient];
    assert_eq!(after(1, request), expected);
    let refused = to_client(&[b"\x05\x00\x00\x01", OPENED, b"\x05\x06\x00\x01", NONE]);
    let why = note("SOCKS 5: nobody came in by BIND: nobody");
    assert_eq!(after(2, request), [checked, listens, refused, why, ProxyStep::EndClient]);
}

#[test]
fn version_4_waits_for_an_ipv4_address() {
    let request = b"\x04\x02\x00\x15\x00\x00\x00\x01\x00h\x00";
    let v6 = "[2001:db8::1]:21".parse().expect("an address");
    let v4 = "[::ffff:10.0.0.1]:21".parse().expect("an address");
    for (addresses, listens) in [(vec![v6, v4], true), (vec![v6], false)] {
        let mut socks = open();
        let mut steps = Vec::new();
        socks.from_client(request, &mut steps);
        steps.clear();
        socks.host_checked(Ok(addresses), &mut steps);
        if listens {
            assert_eq!(steps, [listen("10.0.0.1")]);
        } else {
            let why = note("SOCKS 4: the host that will connect has no IPv4 address");
            assert_eq!(steps, [to_client(&[REJECTED_4]), why, ProxyStep::EndClient]);
        }
    }
}

#[test]
fn what_the_client_says_before_its_guest_comes_waits() {
    let mut socks = open();
    let mut steps = Vec::new();
    socks.from_client(b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x15", &mut steps);
    assert!(!socks.takes_client() && !socks.awaits_client());
    // All the same what comes is kept within its bound.
    socks.from_client(&vec![b'x'; PROXY_HEAD_BYTES], &mut steps);
    assert_eq!(steps.len(), 2);
    socks.from_client(b"x", &mut steps);
    assert_eq!(steps.last(), Some(&ProxyStep::EndClient));
}

#[test]
fn udp_associate_lasts_as_long_as_its_client() {
    let mut socks = open();
    let mut steps = Vec::new();
    socks.from_client(&[b"\x05\x01\x00", ASSOCIATE].concat(), &mut steps);
    assert_eq!(steps, [to_client(&[b"\x05\x00"]), associate()]);
    assert!(!socks.awaits_client());
    steps.clear();
    let port = "[2001:db8::1]:258".parse().expect("an address");
    socks.port_opened(1, Ok(port), &mut steps);
    let address = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
    assert_eq!(steps, [to_client(&[b"\x05\x00\x00\x04", address, b"\x01\x02"])]);
    steps.clear();
    for _ in 0..3 {
        assert!(!socks.awaits_client() && socks.takes_client());
        socks.from_client(&vec![b'x'; PROXY_HEAD_BYTES], &mut steps);
        socks.timed_out(&mut steps);
    }
    assert_eq!(steps, []);
    socks.client_ended(&mut steps);
    assert_eq!(steps, [ProxyStep::EndClient]);
}

#[test]
fn udp_associate_in_every_split() {
    let name = b"\x05\x03\x00\x03\x01h\x00\x35ignored";
    for request in [ASSOCIATE, name] {
        let granted = to_client(&[b"\x05\x00\x00\x01", OPENED]);
        assert_eq!(asked(request, 0)[1..], [associate(), granted, ProxyStep::EndClient]);
        let refused = to_client(&[b"\x05\x07\x00\x01", NONE]);
        let why = note("SOCKS 5: no port for UDP ASSOCIATE: no port");
        assert_eq!(after(0, request), [associate(), refused, why, ProxyStep::EndClient]);
    }
    // There is none in 4.
    let steps = in_every_split(&open, b"\x04\x03\x00\x15\x0a\x00\x00\x01\x00", 0);
    let why = note("SOCKS 4: command 3 is not supported");
    assert_eq!(steps, [to_client(&[REJECTED_4]), why, ProxyStep::EndClient]);
}
