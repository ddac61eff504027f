//! What comes of whole conversations.

mod answers;
mod any;
mod kept;
mod refused;
mod requests;
mod users;

use super::{Http, HttpConfig};
use crate::proxy_proto::http_script::{Event, Outcome, play, play_split};
use crate::proxy_proto::{Conversation, ProxyStep, Target};

fn http() -> Box<dyn Conversation> {
    Box::new(Http::new(HttpConfig { via: "relay".into(), users: None }))
}

/// What comes of a script: the same for every cut of every event's bytes in two, and for all of
/// them in single bytes.
fn outcome(events: &[Event<'_>]) -> Outcome {
    outcome_of(&http, events)
}

/// As [`outcome`], of another proxy.
fn outcome_of(make: &dyn Fn() -> Box<dyn Conversation>, events: &[Event<'_>]) -> Outcome {
    let whole = play(make, events, usize::MAX);
    assert_eq!(play(make, events, 1), whole, "single bytes: {events:?}");
    for (cut, event) in events.iter().enumerate() {
        let (Event::Client(bytes) | Event::Server(bytes)) = event else { continue };
        for at in 0..=bytes.len() {
            let split = |index: usize, bytes| {
                if index != cut {
                    return vec![bytes];
                }
                let (first, second) = <[u8]>::split_at(bytes, at);
                vec![first, second]
            };
            let steps = play_split(make, events, split);
            assert_eq!(steps, whole, "event {cut} cut at {at}: {events:?}");
        }
    }
    whole
}

fn client(text: &str) -> Event<'_> {
    Event::Client(text.as_bytes())
}

fn server(text: &str) -> Event<'_> {
    Event::Server(text.as_bytes())
}

fn connect(host: &str, port: u16) -> ProxyStep {
    ProxyStep::Connect(Target { host: host.into(), port })
}

fn to_server(text: &str) -> ProxyStep {
    ProxyStep::ToServer(text.into())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The status that the proxy gave in its own name, as the only answer and the last.
fn status(outcome: &Outcome) -> u16 {
    let said = text(&outcome.to_client);
    assert!(said.starts_with("HTTP/1.1 "), "{said}");
    assert_eq!(said.matches("\r\nConnection: close\r\n").count(), 1, "{said}");
    assert!(said.ends_with("This is the HTTP proxy of sockmux-uring.\n"), "{said}");
    assert_eq!(outcome.others.last(), Some(&ProxyStep::EndClient));
    assert!(
        outcome
            .others
            .iter()
            .any(|step| matches!(step, ProxyStep::Note(_) | ProxyStep::WrongPassword(_)))
    );
    said["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}

/// Nothing was passed on and nobody connected.
fn reached_nobody(outcome: &Outcome) -> bool {
    !outcome
        .others
        .iter()
        .any(|step| matches!(step, ProxyStep::Connect(_) | ProxyStep::ToServer(_)))
}
