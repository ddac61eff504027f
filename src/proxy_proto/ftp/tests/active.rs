//! PORT and EPRT.

use super::*;

fn listen(request: u32, port: u16) -> ProxyStep {
    let ip = |text: &str| text.parse().expect("an address");
    ProxyStep::ListenHere {
        request,
        own: Some(ip("198.51.100.7")),
        from: ip("192.0.2.1"),
        then: PortUse::CallClient(port),
    }
}

#[test]
fn we_listen_for_the_server_and_call_the_client() {
    for said in ["PORT 203,0,113,5,4,1\r\n", "EPRT |1|203.0.113.5|1025|\r\n"] {
        let events =
            [client(said), Event::PortOpens, server("200 Fine\r\n"), Event::PortUsed, client(said)];
        let expected = [
            listen(0, 1025),
            to_server("PORT 198,51,100,7,195,80\r\n"),
            to_client("200 Fine\r\n"),
            listen(1, 1025),
        ];
        assert_eq!(session(&Scene::PLAIN, &events), expected, "{said}");
    }
}

#[test]
fn an_ipv6_server_gets_eprt() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    for (scene, said) in [
        (ALL_IPV6, "EPRT |2|2001:db8:c::5|1025|\r\n"),
        (Scene { client: Some("203.0.113.5"), ..ALL_IPV6 }, "PORT 203,0,113,5,4,1\r\n"),
    ] {
        let listens = ProxyStep::ListenHere {
            request: 0,
            own: Some(ip("2001:db8:7::7")),
            from: ip("2001:db8::1"),
            then: PortUse::CallClient(1025),
        };
        let expected = [listens, to_server("EPRT |2|2001:db8:7::7|50000|\r\n")];
        assert_eq!(session(&scene, &[client(said), Event::PortOpens]), expected);
    }
}

#[test]
fn no_other_host_and_no_service_gets_a_data_connection() {
    let own_host = "500 Data connections go to the client's own host only\r\n";
    let low = "501 Data connections go to no port below 1024\r\n";
    for (said, answer) in [
        ("PORT 192,0,2,1,4,1", own_host),
        ("PORT 127,0,0,1,31,144", own_host),
        ("PORT 203,0,113,6,4,1", own_host),
        ("EPRT |1|127.0.0.1|8080|", own_host),
        ("EPRT |2|::1|8080|", own_host),
        ("EPRT |2|::ffff:203.0.113.6|8080|", own_host),
        ("PORT 203,0,113,5,0,25", low),
        ("PORT 203,0,113,5,3,255", low),
        ("EPRT |1|203.0.113.5|0|", low),
        ("PORT 203,0,113,5,4", "501 This is no address\r\n"),
        ("PORT", "501 This is no address\r\n"),
        ("EPRT |1|203.0.113.5|70000|", "501 This is no address\r\n"),
        ("EPRT |9|x|1025|", "522 Network protocol not supported, use (1,2)\r\n"),
        ("LPRT 4,4,203,0,113,5,2,4,1", "502 Use PASV, EPSV, PORT or EPRT\r\n"),
        ("CPSV", "502 Use PASV, EPSV, PORT or EPRT\r\n"),
    ] {
        let line = format!("{said}\r\nNOOP\r\n");
        let mut steps = session(&Scene::PLAIN, &[client(&line)]);
        let note = matches!(steps.first(), Some(ProxyStep::Note(_))).then(|| steps.remove(0));
        assert_eq!(note.is_some(), answer == own_host, "{said}");
        assert_eq!(steps, [to_client(answer), to_server("NOOP\r\n")], "{said}");
    }
}

#[test]
fn a_client_that_is_not_known_has_no_host() {
    let unknown = Scene { client: None, ..Scene::PLAIN };
    let steps = session(&unknown, &[client("PORT 203,0,113,5,4,1\r\n")]);
    let answer = "500 Data connections go to the client's own host only\r\n";
    assert_eq!(steps.last(), Some(&to_client(answer)));
}

#[test]
fn ports_are_closed_that_are_of_no_more_use() {
    let port = client("PORT 203,0,113,5,4,1\r\n");
    let named = |nth| to_server(&format!("PORT 198,51,100,7,195,{}\r\n", 80 + nth));
    let events = [
        port,
        Event::PortOpens,
        server("500 Not me\r\n"),
        port,
        Event::PortFails,
        port,
        Event::PortOpens,
        server("200 Fine\r\n"),
        port,
        Event::PortOpens,
    ];
    let expected = [
        listen(0, 1025),
        named(0),
        to_client("500 Not me\r\n"),
        ProxyStep::ClosePort(0),
        listen(1, 1025),
        to_client("425 Cannot open a data connection: there are too many\r\n"),
        listen(2, 1025),
        named(2),
        to_client("200 Fine\r\n"),
        ProxyStep::ClosePort(2),
        listen(3, 1025),
        named(3),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn what_was_asked_before_is_answered_before() {
    let events = [
        client("NOOP\r\nPORT 203,0,113,5,4,1\r\nRETR a\r\n"),
        Event::PortFails,
        server("200 Yes\r\n150 Here\r\n"),
    ];
    let expected = [
        to_server("NOOP\r\n"),
        listen(0, 1025),
        to_server("RETR a\r\n"),
        to_client(
            "200 Yes\r\n425 Cannot open a data connection: there are too many\r\n150 Here\r\n",
        ),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}
