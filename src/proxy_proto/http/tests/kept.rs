//! Connections that are kept: many requests on one.

use super::*;

fn get(host: &str, path: &str) -> String {
    format!("GET http://{host}/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn post(host: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// What the server gets of [`get`].
fn got(host: &str, path: &str) -> String {
    format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nVia: 1.1 relay\r\n\r\n")
}

fn posted(host: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nVia: 1.1 relay\r\n\r\n{body}"
    )
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What the client gets of [`answer`].
fn answered(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nVia: 1.1 relay\r\n\r\n{body}", body.len())
}

#[test]
fn requests_for_one_server_and_others() {
    let (one, two, three) = (get("a", "1"), post("A", "hello"), get("b:81", "3"));
    let (first, second, third) = (answer("x"), answer(""), answer("z"));
    let outcome = outcome(&[
        client(&one),
        Event::Connected,
        server(&first),
        client(&two),
        server(&second),
        client(&three),
        Event::Connected,
        server(&third),
        Event::ServerEnds,
        Event::TimesOut,
    ]);
    assert_eq!(text(&outcome.to_client), [answered("x"), answered(""), answered("z")].concat());
    let expected = [
        connect("a", 80),
        to_server(&[got("a", "1"), posted("A", "hello")].concat()),
        connect("b", 81),
        to_server(&got("b:81", "3")),
        // The server had enough, and the client has asked for nothing since.
        ProxyStep::EndServer,
        ProxyStep::EndClient,
    ];
    assert_eq!(outcome.others, expected);
}

#[test]
fn requests_ahead_of_their_answers() {
    let requests = [get("a", "1"), get("a", "2"), post("b", "body"), get("a", "4")].concat();
    let (first, second, third) = (answer("x"), answer("y"), answer("z"));
    let outcome = outcome(&[
        client(&requests),
        Event::ClientEnds,
        Event::Connected,
        server(&first),
        server(&second),
        Event::Connected,
        server(&third),
        Event::Connected,
        server(&first),
    ]);
    let said = [answered("x"), answered("y"), answered("z"), answered("x")].concat();
    assert_eq!(text(&outcome.to_client), said);
    let expected = [
        connect("a", 80),
        to_server(&[got("a", "1"), got("a", "2")].concat()),
        connect("b", 80),
        to_server(&posted("b", "body")),
        connect("a", 80),
        to_server(&got("a", "4")),
        ProxyStep::EndClient,
    ];
    assert_eq!(outcome.others, expected);
}

#[test]
fn the_second_of_two_requests_is_refused_behind_the_answer_of_the_first() {
    let requests = [&get("a", ""), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let first = answer("x");
    let outcome = outcome(&[client(&requests), Event::Connected, server(&first)]);
    let said = text(&outcome.to_client).strip_prefix(&answered("x")[..]).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(outcome.others.last(), Some(&ProxyStep::EndClient));
}

/// Behind an answer that the client was told to be the last, nothing is served.
#[test]
fn requests_behind_the_last() {
    let last = "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let requests = [last, &get("a", "2")].concat();
    let first = answer("x");
    let outcome = outcome(&[client(&requests), Event::Connected, server(&first)]);
    assert!(outcome.to_client.ends_with(b"Connection: close\r\n\r\nx"));
    assert!(matches!(outcome.others[..], [_, ProxyStep::ToServer(_), ProxyStep::EndClient]));
}

/// A kept connection that its server ends while the next request is on the way: what can be asked
/// again is; for the rest the client sees the end, as it would have seen it of the server.
#[test]
fn kept_servers_that_end() {
    let (one, two, body) = (get("a", "1"), get("a", "2"), post("a", "hello"));
    let (first, second) = (answer("x"), answer("y"));
    let asked = [client(&one), Event::Connected, server(&first)];
    let again = [client(&two), Event::ServerEnds, Event::Connected, server(&second)];
    let repeated = outcome(&[&asked[..], &again].concat());
    assert_eq!(text(&repeated.to_client), [answered("x"), answered("y")].concat());
    let expected = [
        connect("a", 80),
        to_server(&[got("a", "1"), got("a", "2")].concat()),
        connect("a", 80),
        to_server(&got("a", "2")),
    ];
    assert_eq!(repeated.others, expected);
    // But not for ever.
    let again = [client(&two), Event::ServerEnds, Event::Connected, Event::ServerEnds];
    let gone = outcome(&[&asked[..], &again].concat());
    assert!(text(&gone.to_client).contains("HTTP/1.1 502 "));
    // Not what might be done twice.
    let once = outcome(&[&asked[..], &[client(&body), Event::ServerEnds]].concat());
    assert_eq!(text(&once.to_client), answered("x"));
    assert!(matches!(once.others[..], [_, _, ProxyStep::Note(_), ProxyStep::EndClient]));
    // An interim answer says that the server has it.
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let had = [client(&two), server(interim), Event::ServerEnds];
    let had = outcome(&[&asked[..], &had].concat());
    assert!(text(&had.to_client).contains("HTTP/1.1 502 "));
}

#[test]
fn an_answer_before_the_request_is_whole() {
    let request = "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo";
    let next = get("a", "2");
    let (first, second) = (answer("x"), answer("y"));
    let early = [client(request), Event::Connected, server(&first)];
    let rest = [client("dy"), client(&next), server(&second)];
    let whole = outcome(&[&early[..], &rest].concat());
    assert_eq!(text(&whole.to_client), [answered("x"), answered("y")].concat());
    let said = [posted("a", "body"), got("a", "2")].concat();
    assert_eq!(whole.others, [connect("a", 80), to_server(&said)]);
    // The rest is of no use to a server that has gone, and none comes from a client that has.
    for end in [Event::ServerEnds, Event::ClientEnds] {
        let ended = outcome(&[&early[..], &[end]].concat());
        assert_eq!(text(&ended.to_client), answered("x"));
        assert_eq!(ended.others.last(), Some(&ProxyStep::EndClient));
    }
}

/// What a server says unasked is not taken for the answer to the next request.
#[test]
fn answers_that_nobody_asked_for() {
    let (one, two) = (get("a", "1"), get("a", "2"));
    let (first, second) = (answer("x"), answer("y"));
    let outcome = outcome(&[
        client(&one),
        Event::Connected,
        server(&first),
        server("HTTP/1.1 408 Request Timeout\r\n\r\n"),
        Event::ServerEnds,
        client(&two),
        Event::Connected,
        server(&second),
    ]);
    assert_eq!(text(&outcome.to_client), [answered("x"), answered("y")].concat());
    let expected = [
        connect("a", 80),
        to_server(&got("a", "1")),
        ProxyStep::EndServer,
        connect("a", 80),
        to_server(&got("a", "2")),
    ];
    assert_eq!(outcome.others, expected);
}
