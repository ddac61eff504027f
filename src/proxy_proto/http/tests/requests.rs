//! Requests that are served, and as what they go on.

use super::*;

/// The request as the server of `host` gets it.
fn forwarded(request: &str, host: &str) -> String {
    let outcome = outcome(&[client(request), Event::Connected]);
    assert_eq!(outcome.to_client, b"", "{request}");
    match &outcome.others[..] {
        [ProxyStep::Connect(target), ProxyStep::ToServer(said)] => {
            assert_eq!(target.to_string(), host, "{request}");
            text(said).to_owned()
        }
        other => panic!("{request}: {other:?}"),
    }
}

/// Requests, the host of their server, and what that server gets.
fn check(cases: &[(&str, &str, &str)]) {
    for (request, host, server) in cases {
        assert_eq!(forwarded(request, host), *server, "{request}");
    }
}

#[test]
fn heads_are_written_anew() {
    check(&[
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 relay\r\n\r\n",
        ),
        // The address is what counts, and a server has one name.
        (
            "GET http://H:8080/a?b=c HTTP/1.1\r\nhost: other\r\nA: 1\r\na: 2\r\n\r\n",
            "h:8080",
            "GET /a?b=c HTTP/1.1\r\nHost: H:8080\r\nA: 1\r\na: 2\r\nVia: 1.1 relay\r\n\r\n",
        ),
        // A fragment and a user are the client's own.
        (
            "GET http://u:p@h:81/a?b#c HTTP/1.1\r\nHost: u:p@h:81\r\nA: 1\r\n\r\n",
            "h:81",
            "GET /a?b HTTP/1.1\r\nHost: h:81\r\nA: 1\r\nVia: 1.1 relay\r\n\r\n",
        ),
        (
            "GET http://h#/c HTTP/1.0\r\nAuthorization: Basic eDp5\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic eDp5\r\nVia: 1.0 relay\r\n\
             Connection: close\r\n\r\n",
        ),
        // Empty lines before a request, and blanks around values.
        (
            "\r\n\r\nGET http://[::1] HTTP/1.1\r\nHost:\r\nA:\tb \t\r\nB:\r\n\r\n",
            "[::1]:80",
            "GET / HTTP/1.1\r\nHost: [::1]\r\nA: b\r\nB: \r\nVia: 1.1 relay\r\n\r\n",
        ),
        // HTTP/1.0: no Host needed, no connection kept, no expectation heard.
        (
            "GET http://h/ HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 relay\r\nConnection: close\r\n\r\n",
        ),
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: Close\r\nVia: 1.0 a\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 a\r\nVia: 1.1 relay\r\nConnection: close\r\n\r\n",
        ),
    ]);
}

#[test]
fn what_is_for_this_hop_goes_no_further() {
    check(&[
        // What is for this hop only, by name and by Connection.
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n\
             Proxy-Authorization: Basic eDp5\r\nAuthorization: Basic eDp5\r\nTE: trailers\r\n\
             Trailer: a\r\nConnection: mine, keep-alive\r\nConnection: TE ,yours,,\r\nMine: 1\r\n\
             YOURS: 2\r\nTheirs: 3\r\nUpgrade: websocket\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic eDp5\r\nTheirs: 3\r\n\
             Via: 1.1 relay\r\n\r\n",
        ),
        // But not what says where the message goes and ends.
        (
            "PUT http://h/ HTTP/1.1\r\nHost: h\r\nConnection: host, content-length\r\n\
             Content-Length: 2\r\n\r\nab",
            "h:80",
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nVia: 1.1 relay\r\n\r\nab",
        ),
        (
            "POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 2\r\nContent-Length: 02\r\n\
             Expect: 100-continue\r\n\r\nab",
            "h:80",
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\
             Via: 1.1 relay\r\n\r\nab",
        ),
        (
            "POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
             03;x\r\nabc\r\n0\r\nT: 1\r\n\r\n",
            "h:80",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nVia: 1.1 relay\r\n\r\n\
             3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
        ),
        (
            "OPTIONS http://h HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\n\r\n",
            "h:80",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 9\r\nVia: 1.1 relay\r\n\r\n",
        ),
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nVia: 1.1 relay\r\n\r\n",
        ),
        // An upgrade that is meant, and one that would need more.
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 relay\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\n\r\n",
        ),
        (
            "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade, http2-settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            "h:80",
            "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 relay\r\n\r\n",
        ),
        // Methods that nobody knows, and paths in any letters.
        (
            "BREW http://h/\u{e4}%20;a HTTP/1.1\r\nHost: h\r\nA: \u{e4}\r\n\r\n",
            "h:80",
            "BREW /\u{e4}%20;a HTTP/1.1\r\nHost: h\r\nA: \u{e4}\r\nVia: 1.1 relay\r\n\r\n",
        ),
    ]);
}

#[test]
fn connect_makes_a_tunnel() {
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let events = [
        client("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nearly"),
        Event::Connected,
        client(" and late"),
        server("answer"),
    ];
    let tunnel = outcome(&events);
    assert_eq!(tunnel.to_client, [&established[..], b"answer"].concat());
    let steps = [connect("h", 443), to_server("early and late"), ProxyStep::Pass];
    assert_eq!(tunnel.others, steps);
    // Nothing of its head goes on, so it may have no Host.
    let events = [client("CONNECT h:443 HTTP/1.1\r\n\r\n"), Event::Connected, client("late")];
    assert_eq!(outcome(&events).others, [connect("h", 443), to_server("late"), ProxyStep::Pass]);
    // A client that has nothing more to say than what came early.
    let request = "CONNECT [::1]:22 HTTP/1.0\r\nContent-Length: 0\r\n\r\nall";
    let ended = outcome(&[client(request), Event::ClientEnds, Event::Connected]);
    assert_eq!(ended.to_client, established);
    let steps = [connect("::1", 22), to_server("all"), ProxyStep::EndServer, ProxyStep::Pass];
    assert_eq!(ended.others, steps);
}

#[test]
fn an_upgrade_that_the_server_agrees_to() {
    let request = "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: a\r\n\
                   Upgrade: b\r\n\r\nfirst";
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: b\r\n\
                  C: d\r\n\r\nsecond";
    let events =
        [client(request), Event::Connected, server(answer), client("third"), server("fourth")];
    let outcome = outcome(&events);
    assert_eq!(
        text(&outcome.to_client),
        "HTTP/1.1 101 Switching Protocols\r\nC: d\r\nVia: 1.1 relay\r\nConnection: upgrade\r\n\
         Upgrade: b\r\n\r\nsecondfourth"
    );
    let head = "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 relay\r\nConnection: upgrade\r\n\
                Upgrade: a, b\r\n\r\nfirstthird";
    assert_eq!(outcome.others, [connect("h", 80), to_server(head), ProxyStep::Pass]);
}

#[test]
fn an_upgrade_that_the_server_ignores_is_a_request() {
    let request = "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n";
    let answer =
        "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n";
    let outcome = outcome(&[client(request), Event::Connected, server(answer)]);
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 relay\r\n\r\n";
    assert_eq!(text(&outcome.to_client), said);
    assert!(outcome.awaits_client);
}
