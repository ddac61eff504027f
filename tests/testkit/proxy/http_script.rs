//! A client and servers of the HTTP proxy by a script, and the engine's part between them. The parent
//! module imports the types.

use std::net::SocketAddr;

use super::{Conversation, ProxyStep, Unreached};

/// Events. An impossible one, such as bytes of a server that is not connected, is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    Client(&'a [u8]),
    ClientEnds,
    Connected,
    /// The connect fails.
    Fails,
    Server(&'a [u8]),
    ServerEnds,
    TimesOut,
}

/// The results. The two directions are separate, since their interleaving does not matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// All bytes that the client got.
    pub(crate) to_client: Vec<u8>,
    /// Everything else, neighbours of one kind joined, with [`ProxyStep::Pass`] as the last.
    pub(crate) others: Vec<ProxyStep>,
    /// The results of `awaits_client` and `takes_client` at the end.
    pub(crate) awaits_client: bool,
    pub(crate) takes_client: bool,
}

/// Any script: pieces make no difference, the rules are kept, and it ends when both sides do. The
/// first byte selects the length of pieces; then follow events, those with bytes with their count before.
pub(crate) fn run(make: &dyn Fn() -> Box<dyn Conversation>, data: &[u8]) {
    let Some((&piece, mut rest)) = data.split_first() else { return };
    let mut events = Vec::new();
    while let Some((&kind, behind)) = rest.split_first() {
        rest = behind;
        let mut bytes = || {
            let (&count, behind) = rest.split_first().unwrap_or((&0, &[]));
            let (bytes, behind) = behind.split_at(behind.len().min(count.into()));
            rest = behind;
            bytes
        };
        events.push(match kind % 8 {
            0 | 1 => Event::Client(bytes()),
            2 | 3 => Event::Server(bytes()),
            4 => Event::Connected,
            5 => Event::Fails,
            6 => Event::ServerEnds,
            _ if kind < 64 => Event::TimesOut,
            _ => Event::ClientEnds,
        });
    }
    let piece = 1 + usize::from(piece);
    let ends = [Event::ClientEnds, Event::Fails, Event::ServerEnds, Event::Fails];
    events.extend(ends);
    let whole = play(make, &events, usize::MAX);
    assert_eq!(play(make, &events, piece), whole, "in pieces of {piece}: {events:?}");
    assert!(matches!(
        whole.others.last(),
        Some(ProxyStep::Pass | ProxyStep::EndClient | ProxyStep::Reset(_))
    ));
}

/// Plays the script, bytes in pieces of this many.
pub(crate) fn play(
    make: &dyn Fn() -> Box<dyn Conversation>,
    events: &[Event<'_>],
    piece: usize,
) -> Outcome {
    play_split(make, events, |_, bytes| bytes.chunks(piece).collect())
}

/// Plays the script, the bytes of each event (it is counted) in pieces by choice.
pub(crate) fn play_split<'a>(
    make: &dyn Fn() -> Box<dyn Conversation>,
    events: &[Event<'a>],
    split: impl Fn(usize, &'a [u8]) -> Vec<&'a [u8]>,
) -> Outcome {
    let mut play = Play {
        conversation: make(),
        outcome: Outcome::default(),
        connects: false,
        connected: false,
        may_write: false,
        client_ended: false,
        passes: false,
        over: false,
    };
    play.tell(|conversation, steps| conversation.begin(steps));
    for (index, event) in events.iter().enumerate() {
        match *event {
            Event::Client(bytes) => {
                split(index, bytes).into_iter().for_each(|piece| play.client(piece))
            }
            Event::Server(bytes) => {
                split(index, bytes).into_iter().for_each(|piece| play.server(piece))
            }
            _ => play.happens(*event),
        }
    }
    play.finish()
}

struct Play {
    conversation: Box<dyn Conversation>,
    outcome: Outcome,
    /// A connect is requested and not answered.
    connects: bool,
    /// A server is connected, and has not ended.
    connected: bool,
    /// A server is connected, and has not been sent the end.
    may_write: bool,
    client_ended: bool,
    passes: bool,
    /// It passed or ended: no more steps.
    over: bool,
}

impl Play {
    fn client(&mut self, bytes: &[u8]) {
        if self.client_ended {
        } else if self.passes {
            self.take(ProxyStep::ToServer(bytes.to_vec()));
        } else {
            self.tell(|conversation, steps| conversation.from_client(bytes, steps));
        }
    }

    fn server(&mut self, bytes: &[u8]) {
        if !self.connected {
        } else if self.passes {
            self.take(ProxyStep::ToClient(bytes.to_vec()));
        } else {
            self.tell(|conversation, steps| conversation.from_server(bytes, steps));
        }
    }

    fn happens(&mut self, event: Event<'_>) {
        match event {
            Event::Connected if self.connects => {
                self.connects = false;
                (self.connected, self.may_write) = (true, true);
                let addresses = (address("192.0.2.1:80"), address("198.51.100.7:40000"));
                self.tell(|conversation, steps| conversation.connected(Ok(addresses), steps));
            }
            Event::Fails if self.connects => {
                self.connects = false;
                let why = Unreached::Refused("nobody listens".into());
                self.tell(|conversation, steps| conversation.connected(Err(why), steps));
            }
            Event::ServerEnds if self.connected => {
                self.connected = false;
                self.tell(|conversation, steps| conversation.server_ended(steps));
            }
            Event::ClientEnds if !self.client_ended => {
                self.client_ended = true;
                self.tell(|conversation, steps| conversation.client_ended(steps));
            }
            Event::TimesOut => self.tell(|conversation, steps| conversation.timed_out(steps)),
            _ => {}
        }
    }

    fn tell(&mut self, what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>)) {
        let mut steps = Vec::new();
        what(&mut *self.conversation, &mut steps);
        for step in steps {
            assert!(!self.over, "{step:?} after the end");
            match &step {
                ProxyStep::Connect(target) => {
                    assert!(!self.connects, "{target} while another is being connected");
                    assert!(target.port != 0 && (1..=255).contains(&target.host.len()), "{target}");
                    assert!(!target.host.contains(char::is_control), "{target:?}");
                    self.connects = true;
                    (self.connected, self.may_write) = (false, false);
                }
                ProxyStep::ToServer(_) => assert!(self.may_write, "{step:?}"),
                ProxyStep::EndServer => {
                    assert!(self.may_write, "{step:?}");
                    self.may_write = false;
                }
                ProxyStep::Pass => {
                    assert!(self.connected);
                    self.passes = true;
                }
                _ => {}
            }
            self.over |=
                matches!(step, ProxyStep::Pass | ProxyStep::EndClient | ProxyStep::Reset(_));
            self.take(step);
        }
    }

    fn take(&mut self, step: ProxyStep) {
        let others = &mut self.outcome.others;
        let passes = others.pop_if(|last| *last == ProxyStep::Pass);
        match (others.last_mut(), step) {
            (_, ProxyStep::ToClient(more)) => self.outcome.to_client.extend(more),
            (Some(ProxyStep::ToServer(said)), ProxyStep::ToServer(more)) => said.extend(more),
            (_, step) => others.push(step),
        }
        others.extend(passes);
    }

    fn finish(mut self) -> Outcome {
        self.outcome.awaits_client = self.conversation.awaits_client();
        self.outcome.takes_client = self.conversation.takes_client();
        if self.over {
            assert!(!self.outcome.awaits_client && !self.outcome.takes_client);
            self.tell(|conversation, steps| {
                conversation.from_client(b"GET http://h/ HTTP/1.0\r\n\r\n", steps);
                conversation.from_server(b"HTTP/1.1 200 OK\r\n\r\n", steps);
                conversation.connected(Err(Unreached::Other("too late".into())), steps);
                conversation.server_ended(steps);
                conversation.client_ended(steps);
                conversation.timed_out(steps);
            });
        }
        self.outcome
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
