//! Users and their passwords.

use super::*;
use crate::cli::plan::User;

/// me with secret, and you with a:b.
const ME: &str = "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n";
const YOU: &str = "proxy-authorization: basic eW91OmE6Yg==\r\n";

fn guarded() -> Box<dyn Conversation> {
    let users = [("me", "secret"), ("you", "a:b")]
        .map(|(name, password)| User { name: name.into(), password: password.into() });
    Box::new(Http::new(HttpConfig { via: "relay".into(), users: Some(users.to_vec()) }))
}

fn get(who: &str) -> String {
    format!("GET http://h/ HTTP/1.1\r\nHost: h\r\n{who}\r\n")
}

#[test]
fn a_user_is_served_and_the_server_does_not_learn_the_password() {
    for who in [ME, YOU] {
        let answer = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let outcome = outcome_of(&guarded, &[client(&get(who)), Event::Connected, answer]);
        let head = "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 relay\r\n\r\n";
        assert_eq!(outcome.others, [connect("h", 80), to_server(head)]);
        assert!(text(&outcome.to_client).starts_with("HTTP/1.1 200 "));
    }
    let tunnel = format!("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n{ME}\r\nearly");
    let outcome = outcome_of(&guarded, &[client(&tunnel), Event::Connected]);
    assert_eq!(outcome.others, [connect("h", 1), to_server("early"), ProxyStep::Pass]);
}

#[test]
fn nobody_else_is_served() {
    for (who, why) in [
        ("", "the proxy has to be told a user and a password"),
        ("Authorization: Basic bWU6c2VjcmV0\r\n", "the proxy has to be told a user and a password"),
        ("Proxy-Authorization: Basic bWU6c2VjcmVU\r\n", "user \"me\" refused"),
        ("Proxy-Authorization: Basic bWU6\r\n", "user \"me\" refused"),
        ("Proxy-Authorization: Basic eW91OnNlY3JldA==\r\n", "user \"you\" refused"),
        ("Proxy-Authorization: Basic bQo6\r\n", "user \"m\\n\" refused"),
        (
            "Proxy-Authorization: Bearer bWU6c2VjcmV0\r\n",
            "Proxy-Authorization is not Basic with a user and a password",
        ),
    ] {
        let tunnel = format!("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n{who}\r\n");
        for request in [&get(who), &tunnel] {
            let outcome = outcome_of(&guarded, &[client(request)]);
            assert_eq!(status(&outcome), 407, "{request}");
            let asks =
                "\r\nProxy-Authenticate: Basic realm=\"sockmux-uring\", charset=\"UTF-8\"\r\n";
            assert!(text(&outcome.to_client).contains(asks));
            let note = match why.starts_with("user ") {
                true => ProxyStep::WrongPassword(why.into()),
                false => ProxyStep::Note(why.into()),
            };
            assert_eq!(outcome.others, [note, ProxyStep::EndClient], "{request}");
        }
    }
    let outcome = outcome_of(&guarded, &[client(&get(&[ME, YOU].concat()))]);
    assert_eq!(status(&outcome), 400);
    assert!(reached_nobody(&outcome));
}

#[test]
fn head_is_asked_without_content() {
    let request = get("").replace("GET ", "HEAD ");
    let outcome = outcome_of(&guarded, &[client(&request)]);
    let said = text(&outcome.to_client);
    assert!(said.starts_with("HTTP/1.1 407 ") && said.ends_with("\r\n\r\n"), "{said}");
    assert_eq!(outcome.others.last(), Some(&ProxyStep::EndClient));
}

/// That one request was a user's says nothing of the next on the same connection.
#[test]
fn every_request_is_asked() {
    let both = [get(ME), get("")].concat();
    let answer = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let outcome = outcome_of(&guarded, &[client(&both), Event::Connected, answer]);
    let said = text(&outcome.to_client);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("HTTP/1.1 407 "), "{said}");
    let served =
        outcome.others.iter().filter(|step| matches!(step, ProxyStep::ToServer(_))).count();
    assert_eq!(served, 1, "{:?}", outcome.others);
}
