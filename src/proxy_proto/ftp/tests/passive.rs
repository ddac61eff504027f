//! PASV and EPSV.

use super::*;

const PASSIVE: &str = "227 Entering Passive Mode (10,9,8,7,200,13).\r\n";
const EXTENDED: &str = "229 Entering Extended Passive Mode (|||51213|)\r\n";

#[test]
fn the_port_of_the_servers_host_is_opened_at_the_peer() {
    for (said, named, answer) in [
        ("PASV\r\n", PASSIVE, "227 Entering Passive Mode (10,0,0,9,156,64).\r\n"),
        ("pasv\n", "227 =10,9,8,7,200,13\r\n", "227 Entering Passive Mode (10,0,0,9,156,64).\r\n"),
        ("EPSV\r\n", EXTENDED, "229 Entering Extended Passive Mode (|||40000|)\r\n"),
        ("EPSV 1\r\n", "229 (!!!51213!)\r\n", "229 Entering Extended Passive Mode (|||40000|)\r\n"),
    ] {
        let sent = if said.starts_with("EPSV") { "EPSV\r\n" } else { "PASV\r\n" };
        let events = [client(said), server(named), Event::PortOpens];
        let expected = [to_server(sent), open_port(0, "192.0.2.1:51213"), to_client(answer)];
        assert_eq!(session(&Scene::PLAIN, &events), expected, "{said}");
    }
}

#[test]
fn addresses_that_are_ipv4_behind_ipv6() {
    let mapped = Scene {
        server: "::ffff:192.0.2.1",
        own: "::ffff:198.51.100.7",
        client: Some("::ffff:203.0.113.5"),
        entrance: "::ffff:10.0.0.9",
        ..Scene::PLAIN
    };
    let events = [client("PASV\r\n"), server(PASSIVE), Event::PortOpens];
    assert_eq!(session(&mapped, &events), session(&Scene::PLAIN, &events));
}

#[test]
fn an_ipv6_server_is_asked_epsv() {
    let ipv6_server = Scene { client: Some("203.0.113.5"), entrance: "10.0.0.9", ..ALL_IPV6 };
    let events = [client("PASV\r\n"), server(EXTENDED), Event::PortOpens];
    let expected = [
        to_server("EPSV\r\n"),
        open_port(0, "[2001:db8::1]:51213"),
        to_client("227 Entering Passive Mode (10,0,0,9,156,64).\r\n"),
    ];
    assert_eq!(session(&ipv6_server, &events), expected);
    let events = [client("EPSV 2\r\n"), server(EXTENDED), Event::PortOpens];
    let steps = session(&ALL_IPV6, &events);
    assert_eq!(steps[2], to_client("229 Entering Extended Passive Mode (|||40000|)\r\n"));
}

#[test]
fn pasv_of_an_ipv6_client_says_that_epsv_is_needed() {
    for entrance in ["2001:db8:9::9", "0.0.0.0", "::"] {
        let scene = Scene { entrance, ..Scene::PLAIN };
        let events = [client("PASV\r\n"), server(PASSIVE), Event::PortOpens];
        let expected = [
            ProxyStep::ClosePort(0),
            to_client("425 There is no IPv4 address for it here: use EPSV\r\n"),
        ];
        assert_eq!(session(&scene, &events)[2..], expected, "{entrance}");
    }
}

#[test]
fn a_server_that_knows_pasv_only() {
    let events = [
        client("EPSV\r\n"),
        server("500-What?\r\n500 Unknown\r\n"),
        server(PASSIVE),
        Event::PortOpens,
        client("EPSV\r\n"),
        server("502 Not now\r\n"),
    ];
    let expected = [
        to_server("EPSV\r\nPASV\r\n"),
        open_port(0, "192.0.2.1:51213"),
        to_client("229 Entering Extended Passive Mode (|||40000|)\r\n"),
        ProxyStep::ClosePort(0),
        to_server("PASV\r\n"),
        to_client("502 Not now\r\n"),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn what_epsv_says_of_the_protocol() {
    let asked = |scene: &Scene, said| session(scene, &[client(said)]);
    let not = |which| to_client(&format!("522 Network protocol not supported, use ({which})\r\n"));
    assert_eq!(asked(&Scene::PLAIN, "EPSV 2\r\n"), [not("1")]);
    assert_eq!(asked(&ALL_IPV6, "EPSV 1\r\n"), [not("2")]);
    assert_eq!(asked(&Scene { client: None, ..ALL_IPV6 }, "EPSV 3\r\n"), [not("1,2")]);
    assert_eq!(asked(&ALL_IPV6, "EPSV 2\r\n"), [to_server("EPSV\r\n")]);
    assert_eq!(asked(&Scene::PLAIN, "epsv all\r\n"), [to_server("epsv all\r\n")]);
}

#[test]
fn replies_that_name_no_port() {
    for (said, reply, answer) in [
        ("PASV", "227 Passive mode it is", "425 The server names no port"),
        ("PASV", "227 (10,9,8,7,0,25)", "425 The server offers port 25"),
        ("PASV", "227 (10,9,8,7,0,0)", "425 The server offers port 0"),
        ("EPSV", "229 (|||80|)", "425 The server offers port 80"),
        ("EPSV", "229 10,9,8,7,200,13", "425 The server names no port"),
        ("PASV", "200 Done", "200 Done"),
        ("PASV", "530 Log in first", "530 Log in first"),
        ("EPSV", "425 No", "425 No"),
        ("PASV", "227", "425 The server names no port"),
    ] {
        let events =
            [client(said), client("\r\nNOOP\r\n"), server(reply), server("\r\n200 Ok\r\n")];
        let expected = [
            to_server(&format!("{said}\r\n")),
            to_client(&format!("{answer}\r\n")),
            to_server("NOOP\r\n"),
            to_client("200 Ok\r\n"),
        ];
        assert_eq!(session(&Scene::PLAIN, &events), expected, "{reply}");
    }
}

#[test]
fn the_late_word_on_a_transfer_is_no_answer() {
    let events = [
        client("ABOR\r\nPASV\r\n"),
        server("426 Aborted\r\n226-Two\r\n226 lines\r\n225 Still open\r\n"),
        server(PASSIVE),
        Event::PortOpens,
    ];
    let expected = [
        to_server("ABOR\r\nPASV\r\n"),
        to_client("426 Aborted\r\n226-Two\r\n226 lines\r\n225 Still open\r\n"),
        open_port(0, "192.0.2.1:51213"),
        to_client("227 Entering Passive Mode (10,0,0,9,156,64).\r\n"),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn what_comes_meanwhile_waits_for_the_port() {
    let events = [
        client("PASV\r\nRETR a\r\nNOOP\r\n"),
        server("227 (10,9,8,7,200,13)\r\n120 By the way\r\n"),
        client("QUIT\r\n"),
        Event::PortOpens,
        server("150 Here\r\n"),
    ];
    let expected = [
        to_server("PASV\r\n"),
        open_port(0, "192.0.2.1:51213"),
        to_client("227 Entering Passive Mode (10,0,0,9,156,64).\r\n"),
        to_server("RETR a\r\nNOOP\r\nQUIT\r\n"),
        to_client("120 By the way\r\n150 Here\r\n"),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn a_port_that_cannot_be_opened_and_another_that_can() {
    let events = [
        client("PASV\r\nEPSV\r\n"),
        server(PASSIVE),
        Event::PortFails,
        server(EXTENDED),
        Event::PortOpens,
        client("EPSV\r\n"),
        server("229 (|||51214|)\r\n"),
        Event::PortOpens,
    ];
    let expected = [
        to_server("PASV\r\n"),
        open_port(0, "192.0.2.1:51213"),
        to_client("425 Cannot open a data connection: there are too many\r\n"),
        to_server("EPSV\r\n"),
        open_port(1, "192.0.2.1:51213"),
        to_client("229 Entering Extended Passive Mode (|||40001|)\r\n"),
        ProxyStep::ClosePort(1),
        to_server("EPSV\r\n"),
        open_port(2, "192.0.2.1:51214"),
        to_client("229 Entering Extended Passive Mode (|||40002|)\r\n"),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn a_server_that_ends_or_says_too_much_while_a_port_is_opened() {
    let ends = [client("PASV\r\n"), server(PASSIVE), Event::ServerEnds, Event::PortOpens];
    let expected = [to_client("421 The server has ended the connection\r\n"), ProxyStep::EndClient];
    assert_eq!(session(&Scene::PLAIN, &ends)[2..], expected);
    let much = "200 Yes\r\n".repeat(PROXY_HEAD_BYTES / 9 + 1);
    let says = [client("PASV\r\n"), server(PASSIVE), server(&much), Event::PortOpens];
    let steps =
        play(&Scene::PLAIN, &[&[Event::Connected, server(GREETING)], &says[..]].concat(), {
            |_, bytes| vec![bytes]
        });
    assert!(steps.contains(&to_client("421 The server says too much at once\r\n")), "{steps:?}");
    assert_eq!(steps.last(), Some(&ProxyStep::EndClient));
}
