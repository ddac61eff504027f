//! What clients and servers of FTP say, and what becomes of it.

mod active;
mod any;
mod control;
mod login;
mod passive;

use super::*;
use crate::proxy_proto::ftp_script::{Event, Scene, play};
use crate::proxy_proto::{Lead, PortUse};

const GREETING: &str = "220 Hello\r\n";

/// The same as [`Scene::PLAIN`] with everybody at IPv6.
const ALL_IPV6: Scene = Scene {
    server: "2001:db8::1",
    own: "2001:db8:7::7",
    client: Some("2001:db8:c::5"),
    entrance: "2001:db8:9::9",
    ..Scene::PLAIN
};

fn client(text: &str) -> Event<'_> {
    Event::Client(text.as_bytes())
}

fn server(text: &str) -> Event<'_> {
    Event::Server(text.as_bytes())
}

fn to_client(text: &str) -> ProxyStep {
    ProxyStep::ToClient(text.into())
}

fn to_server(text: &str) -> ProxyStep {
    ProxyStep::ToServer(text.into())
}

/// What comes of a script, the same for single bytes and for every cut of any of its texts in two.
fn script(scene: &Scene, events: &[Event<'_>]) -> Vec<ProxyStep> {
    let whole = play(scene, events, |_, bytes| vec![bytes]);
    assert_eq!(play(scene, events, |_, bytes| bytes.chunks(1).collect()), whole, "single bytes");
    for (index, event) in events.iter().enumerate() {
        let (Event::Client(bytes) | Event::Server(bytes)) = event else { continue };
        // A text that is too long is not more so for being cut everywhere.
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 1000) {
            let cut = play(scene, events, |of, bytes| match of == index {
                true => vec![&bytes[..at], &bytes[at..]],
                false => vec![bytes],
            });
            assert_eq!(cut, whole, "event {index} cut at {at}");
        }
    }
    whole
}

/// What comes of a script behind the greeting of the exit's server.
fn session(scene: &Scene, events: &[Event<'_>]) -> Vec<ProxyStep> {
    let events = [&[Event::Connected, server(GREETING)], events].concat();
    let mut steps = script(scene, &events);
    let target = Target { host: "ftp.example".into(), port: 21 };
    assert_eq!(steps.remove(0), ProxyStep::Connect(target));
    let Some(ProxyStep::ToClient(said)) = steps.first_mut() else {
        panic!("no greeting: {steps:?}")
    };
    assert!(said.starts_with(GREETING.as_bytes()));
    said.drain(..GREETING.len());
    if said.is_empty() {
        steps.remove(0);
    }
    steps
}

fn open_port(request: u32, address: &str) -> ProxyStep {
    let lead = Lead::Server(address.parse().expect("an address"));
    ProxyStep::OpenPort { request, lead }
}
