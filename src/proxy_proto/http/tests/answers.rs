//! Answers of servers, and as what they come to the client.

use super::*;

const GET: &str = "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HEAD http://h/ HTTP/1.1\r\nHost: h\r\n\r\n";
const OLD: &str = "GET http://h/ HTTP/1.0\r\n\r\n";
const LAST: &str = "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// What happened to the connections.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// Both may be used again.
    Kept,
    /// The server's is not used again.
    Anew,
    /// The client's is ended.
    Ended,
    /// More is awaited.
    More,
}

fn then(outcome: &Outcome) -> Then {
    match outcome.others.last() {
        Some(ProxyStep::EndClient) => Then::Ended,
        Some(ProxyStep::EndServer) => Then::Anew,
        _ if outcome.awaits_client => Then::Kept,
        _ => Then::More,
    }
}

/// A request, the server's answer, what the client gets, and what becomes of the connections.
type Case = (&'static str, &'static str, &'static str, Then);

fn check(cases: &[Case]) {
    for (request, answer, said, expected) in cases {
        let outcome = outcome(&[client(request), Event::Connected, server(answer)]);
        assert_eq!(text(&outcome.to_client), *said, "{answer}");
        assert_eq!(then(&outcome), *expected, "{answer}: {:?}", outcome.others);
    }
}

#[test]
fn answers_are_written_anew() {
    check(&[
        (
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\nVia: 1.1 relay\r\n\r\nab",
            Then::Kept,
        ),
        // No reason, and one that is no text.
        (
            GET,
            "\r\nHTTP/1.1 404\r\ncontent-length : 0\r\n\r\n",
            "HTTP/1.1 404 \r\nContent-Length: 0\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
        // Lines that end with LF alone, all or some of them.
        (
            GET,
            "HTTP/1.1 200 OK\nContent-Length: 2\nA: b\n\nab",
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\nVia: 1.1 relay\r\n\r\nab",
            Then::Kept,
        ),
        (
            GET,
            "\nHTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\nA: b\nContent-Length: 1\n\r\na",
            "HTTP/1.1 100 Continue\r\nVia: 1.1 relay\r\n\r\n\
             HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\nVia: 1.1 relay\r\n\r\na",
            Then::Kept,
        ),
        (
            GET,
            "HTTP/1.0 200 OK\n\nall\n\n",
            "HTTP/1.1 200 OK\r\nVia: 1.0 relay\r\nConnection: close\r\n\r\nall\n\n",
            Then::More,
        ),
    ]);
}

#[test]
fn what_is_for_the_servers_hop_ends_there() {
    check(&[
        // What is for the server's hop only.
        (
            GET,
            "HTTP/1.1 200 OK\r\nConnection: close, mine\r\nKeep-Alive: 5\r\nMine: 1\r\n\
             Proxy-Authenticate: Basic\r\nTrailer: a\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 relay\r\n\r\n",
            Then::Anew,
        ),
        (
            GET,
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nVia: 1.0 relay\r\n\r\na",
            Then::Anew,
        ),
        (
            GET,
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nVia: 1.0 relay\r\n\r\na",
            Then::Kept,
        ),
    ]);
}

#[test]
fn bodies_end_as_the_client_can_read_it() {
    check(&[
        // Chunks, for those who know them and those who do not.
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n02 ;x\r\nab\r\n0\r\nT: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 relay\r\n\r\n\
             2\r\nab\r\n0\r\nT: 1\r\n\r\n",
            Then::Kept,
        ),
        (
            OLD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 relay\r\nConnection: close\r\n\r\nab",
            Then::Ended,
        ),
        // No length: up to the end.
        (
            GET,
            "HTTP/1.1 200 OK\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nVia: 1.1 relay\r\nConnection: close\r\n\r\nab",
            Then::More,
        ),
        (
            LAST,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nVia: 1.1 relay\r\nConnection: close\r\n\r\na",
            Then::Ended,
        ),
    ]);
}

#[test]
fn answers_without_a_body() {
    check(&[
        // No body, whatever the fields say.
        (
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
        (
            HEAD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
        (
            GET,
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
        (
            GET,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
    ]);
}

#[test]
fn answers_before_the_answer_and_behind_it() {
    check(&[
        // Answers before the answer.
        (
            GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nVia: 1.1 relay\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nA: b\r\nVia: 1.1 relay\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 relay\r\n\r\n",
            Then::Kept,
        ),
        (
            OLD,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 relay\r\nConnection: close\r\n\r\n",
            Then::Ended,
        ),
        // More than was asked for is nobody's answer.
        (
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nVia: 1.1 relay\r\n\r\na",
            Then::Anew,
        ),
    ]);
}

#[test]
fn an_answer_that_ends_with_its_connection() {
    let answer = "HTTP/1.1 200 OK\r\n\r\nab";
    let events = [client(GET), Event::Connected, server(answer), server("cd"), Event::ServerEnds];
    let outcome = outcome(&events);
    assert!(outcome.to_client.ends_with(b"\r\n\r\nabcd"));
    assert_eq!(then(&outcome), Then::Ended);
}

#[test]
fn answers_that_are_none() {
    for answer in [
        "SSH-2.0-x",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n c\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    ] {
        let outcome = outcome(&[client(GET), Event::Connected, server(answer)]);
        assert_eq!(status(&outcome), 502, "{answer:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(65_536));
    let events = [client(GET), Event::Connected, server(&long)];
    let whole = play(&http, &events, usize::MAX);
    assert_eq!(status(&whole), 502);
    assert_eq!(play(&http, &events, 1000), whole);
}

#[test]
fn servers_that_end_too_soon() {
    let gone = [client(GET), Event::Connected, Event::ServerEnds];
    assert_eq!(status(&outcome(&gone)), 502);
    let head = [client(GET), Event::Connected, server("HTTP/1.1 200 OK\r\n"), Event::ServerEnds];
    assert_eq!(status(&outcome(&head)), 502);
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ] {
        let outcome = outcome(&[client(GET), Event::Connected, server(answer), Event::ServerEnds]);
        assert!(outcome.to_client.starts_with(b"HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(matches!(outcome.others.last(), Some(ProxyStep::Reset(_))), "{answer}");
    }
}

#[test]
fn answers_that_break_off_are_reset() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nxyz";
    let outcome = outcome(&[client(GET), Event::Connected, server(answer)]);
    assert!(outcome.to_client.ends_with(b"\r\n\r\n2\r\nab\r\n"));
    assert!(matches!(outcome.others.last(), Some(ProxyStep::Reset(_))));
}

#[test]
fn a_server_that_breaks_off_is_not_taken_for_one_that_ends() {
    let answer = b"HTTP/1.1 200 OK\r\n\r\nab";
    let address = "192.0.2.1:80".parse().unwrap();
    for is_reset in [false, true] {
        let (mut http, mut steps) = (http(), Vec::new());
        http.from_client(LAST.as_bytes(), &mut steps);
        http.connected(Ok((address, address)), &mut steps);
        http.from_server(answer, &mut steps);
        match is_reset {
            false => http.server_ended(&mut steps),
            true => http.server_failed(&mut steps),
        }
        assert_eq!(matches!(steps.last(), Some(ProxyStep::Reset(_))), is_reset, "{steps:?}");
    }
}
