//! Requests that are not served, and what is said instead.

use super::*;
use crate::limits::{HTTP_FIELDS_MAX, HTTP_HELD_BYTES, PROXY_HEAD_BYTES};
use crate::proxy_proto::Unreached;

const GET: &str = "GET http://h/ HTTP/1.1\r\nHost: h\r\n";
const POST: &str = "POST http://h/ HTTP/1.1\r\nHost: h\r\n";

#[test]
fn requests_that_are_no_requests_for_a_proxy() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET h HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http://u@v@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT u@h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT h:1#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        ("GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na", 400),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("OPTIONS http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", 501),
        ("TRACE http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", 501),
        ("TRACE http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: -1\r\n\r\n", 400),
        ("GET http://h/ HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("GET http://h/ HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\n", 505),
        ("GET http://h/ http/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http://h/\r\n\r\n", 400),
        ("GET  http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET http://h/ HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        ("GET http://h/a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        (" GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ] {
        let outcome = outcome(&[client(request)]);
        assert_eq!(status(&outcome), expected, "{request}");
        assert!(reached_nobody(&outcome), "{request}");
    }
}

#[test]
fn an_answer_to_head_has_no_content() {
    for (request, expected) in [
        ("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
        ("HEAD https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "501"),
        ("HEAD http://h/ HTTP/2.0\r\nHost: h\r\n\r\n", "505"),
    ] {
        let outcome = outcome(&[client(request)]);
        let said = text(&outcome.to_client);
        assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
        assert!(said.contains("\r\nContent-Length: "), "{said}");
        assert_eq!(outcome.others.last(), Some(&ProxyStep::EndClient));
        assert!(reached_nobody(&outcome), "{request}");
    }
}

/// What another reader could see another request in.
#[test]
fn smuggling() {
    for (first, second) in [
        (POST, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (POST, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        (POST, "Content-Length: 0\r\ntransfer-encoding: identity\r\n\r\n"),
        (POST, "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        (POST, "Content-Length: 5, 6\r\n\r\nhello!"),
        (POST, "Content-Length: +5\r\n\r\nhello"),
        (POST, "Content-Length: 5 6\r\n\r\nhello"),
        (POST, "Content-Length: 0x5\r\n\r\nhello"),
        (POST, "Content-Length: 18446744073709551616\r\n\r\n"),
        (POST, "Transfer-Encoding: xchunked\r\n\r\n"),
        (POST, "Transfer-Encoding: chunked, identity\r\n\r\n"),
        (POST, "Transfer-Encoding: chunked, chunked\r\n\r\n"),
        (POST, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
        (POST, "Transfer-Encoding:\x0bchunked\r\n\r\n"),
        (POST, "Transfer-Encoding: \"chunked\"\r\n\r\n"),
        (POST, "Transfer-Encoding:\r\n chunked\r\n\r\n"),
        (POST, "Transfer-Encoding : chunked\r\n\r\n"),
        (POST, "Content-Length\t: 5\r\n\r\nhello"),
        (POST, " Content-Length: 5\r\n\r\nhello"),
        (POST, "Content-Length: 5\n\r\nhello"),
        (POST, "Content-Length: 5\r\n\nhello"),
        (POST, "A: b\nContent-Length: 5\r\n\r\nhello"),
        (POST, "A: b\rContent-Length: 5\r\n\r\nhello"),
        (POST, "A: b\r\r\nContent-Length: 5\r\n\r\nhello"),
        (POST, "A: b\0c\r\n\r\n"),
        (POST, "A: b\x01c\r\n\r\n"),
        (POST, "A: b\x7fc\r\n\r\n"),
        (POST, "A\0: b\r\n\r\n"),
        (POST, ": b\r\n\r\n"),
        (POST, "no colon\r\n\r\n"),
        (GET, "A: b\r\n c\r\n\r\n"),
        (GET, "A: b\r\n\tc\r\n\r\n"),
        (GET, "Host: h\r\n\r\n"),
        (GET, "host: other\r\n\r\n"),
        ("GET http://h/ HTTP/1.1\r\n", "\r\n"),
        ("GET http://h/ HTTP/1.1\r\n", "Host: a b\r\n\r\n"),
        ("GET http://h/ HTTP/1.1\r\n", "Host: u@v@h\r\n\r\n"),
        ("GET http://h/ HTTP/1.1\r\n", "Host: h/x\r\n\r\n"),
        ("GET http://h/ HTTP/1.0\r\nHost: h\r\n", "Host: h\r\n\r\n"),
        ("POST http://h/ HTTP/1.0\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET http://h/ HTTP/1.1\n", "Host: h\r\n\r\n"),
        ("GET http://h/ HTTP/1.1\r", "Host: h\r\n\r\n"),
        ("GET http://h/\rHTTP/1.1\r\n", "Host: h\r\n\r\n"),
        ("GET http://h/\0 HTTP/1.1\r\n", "Host: h\r\n\r\n"),
        ("G\0T http://h/ HTTP/1.1\r\n", "Host: h\r\n\r\n"),
    ] {
        let request = [first, second].concat();
        let outcome = outcome(&[client(&request)]);
        assert_eq!(status(&outcome), 400, "{request:?}");
        assert!(reached_nobody(&outcome), "{request:?}");
    }
}

#[test]
fn other_transfer_codings_are_not_understood() {
    let request = [POST, "Transfer-Encoding: gzip, chunked\r\n\r\n"].concat();
    let outcome = outcome(&[client(&request)]);
    assert_eq!(status(&outcome), 501);
    assert!(reached_nobody(&outcome));
}

/// Chunks that are none come when their request is on its way: the server never gets its end.
#[test]
fn smuggling_in_chunks() {
    for chunks in [
        "-1\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1;\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\n\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let request = [POST, "Transfer-Encoding: chunked\r\n\r\n", chunks].concat();
        let outcome = outcome(&[client(&request), Event::Connected]);
        assert_eq!(status(&outcome), 400, "{chunks:?}");
        let ProxyStep::ToServer(said) = &outcome.others[1] else { panic!("{outcome:?}") };
        assert!(!said.ends_with(b"0\r\n\r\n"), "{:?}", text(said));
    }
}

#[test]
fn clients_that_end_or_are_too_slow() {
    for (events, expected) in [
        (&[Event::TimesOut][..], 408),
        (&[client("GET http"), Event::TimesOut], 408),
        (&[client("GET http://h/ HTTP/1.1\r\n"), Event::ClientEnds], 400),
        (
            &[
                client("POST http://h/ HTTP/1.0\r\nContent-Length: 5\r\n\r\nhell"),
                Event::ClientEnds,
                Event::Connected,
            ],
            400,
        ),
    ] {
        assert_eq!(status(&outcome(events)), expected, "{events:?}");
    }
    for events in [&[Event::ClientEnds][..], &[client("\r\n"), Event::ClientEnds]] {
        let outcome = outcome(events);
        assert_eq!(
            (&outcome.to_client[..], &outcome.others[..]),
            (&b""[..], &[ProxyStep::EndClient][..])
        );
    }
    // A body is nothing that is asked for.
    let request = [POST, "Content-Length: 5\r\n\r\nhell"].concat();
    let events = [client(&request), Event::Connected, Event::TimesOut, client("o")];
    let outcome = outcome(&events);
    assert_eq!(outcome.to_client, b"");
    assert!(!outcome.awaits_client && !outcome.takes_client);
}

#[test]
fn servers_that_are_not_reached() {
    let get = format!("{GET}\r\n");
    let head = get.replace("GET", "HEAD");
    let tunnel = "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nearly";
    for (unreached, expected) in [
        (Unreached::NotPermitted("why".into()), 403),
        (Unreached::NameNotFound("why".into()), 502),
        (Unreached::Refused("why".into()), 502),
        (Unreached::TimedOut("why".into()), 504),
        (Unreached::Other("why".into()), 502),
    ] {
        for request in [&get, &head, tunnel] {
            let mut http = http();
            let mut steps = Vec::new();
            http.from_client(request.as_bytes(), &mut steps);
            assert!(matches!(steps[..], [ProxyStep::Connect(_)]), "{steps:?}");
            steps.clear();
            http.connected(Err(unreached.clone()), &mut steps);
            let [ProxyStep::ToClient(said), ProxyStep::Note(note), ProxyStep::EndClient] =
                &steps[..]
            else {
                panic!("{steps:?}");
            };
            let said = text(said);
            assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{said}");
            assert_eq!(note, "why");
            assert_eq!(said.ends_with("\r\n\r\n"), request == head, "{said}");
            assert_eq!(said.contains("\n\nwhy\n\n"), request != head, "{said}");
        }
    }
}

#[test]
fn what_is_too_large() {
    let long = format!("{GET}A: {}\r\n\r\n", "b".repeat(PROXY_HEAD_BYTES));
    let many = format!("{GET}{}\r\n", "A: b\r\n".repeat(HTTP_FIELDS_MAX));
    for request in [&long, &many, &"A".repeat(PROXY_HEAD_BYTES + 1)] {
        let whole = play(&http, &[client(request)], usize::MAX);
        assert_eq!(status(&whole), 431);
        assert_eq!(play(&http, &[client(request)], 1000), whole);
    }
    let most = format!("{GET}{}\r\n", "A: b\r\n".repeat(HTTP_FIELDS_MAX - 1));
    let served = play(&http, &[client(&most), Event::Connected], usize::MAX);
    assert!(matches!(served.others[..], [ProxyStep::Connect(_), ProxyStep::ToServer(_)]));
    let named = format!("{GET}Connection: {}\r\n\r\n", "a,".repeat(HTTP_FIELDS_MAX + 1));
    assert_eq!(status(&play(&http, &[client(&named)], usize::MAX)), 400);
}

/// A fast upload waits for its server within the window, and is passed without being held then.
#[test]
fn what_is_sent_ahead() {
    let head = [POST, "Content-Length: 10000000\r\n\r\n"].concat();
    let window = "b".repeat(HTTP_HELD_BYTES);
    let more = "c".repeat(HTTP_HELD_BYTES + 1);
    let events = [client(&head), client(&window), Event::Connected, client(&more)];
    for piece in [usize::MAX, 65_536] {
        let outcome = play(&http, &events, piece);
        let ProxyStep::ToServer(said) = &outcome.others[1] else { panic!("nothing was passed") };
        assert!(said.ends_with(more.as_bytes()));
        assert_eq!(outcome.to_client, b"");
        assert!(outcome.takes_client);
        let ahead = play(&http, &[client(&head), client(&more)], piece);
        assert_eq!(status(&ahead), 413);
    }
}
