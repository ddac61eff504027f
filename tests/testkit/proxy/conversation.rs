//! A client in a conversation with a proxy, and the engine's part in it. The parent module imports the
//! types.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::{Conversation, PortUse, ProxyStep, Unreached};

/// Where the servers are that are reached, and we towards them.
const SERVER: &str = "192.0.2.1:23";
const OWN: &str = "198.51.100.7:40000";

/// The address of requested ports, and of the host that connects to one.
const PORT: &str = "203.0.113.9:50000";
const GUEST: &str = "192.0.2.1:20";

/// Most bytes of a client. Beyond `limits::PROXY_HEAD_BYTES` the whole is too much at once where pieces
/// are not.
const SAID_BYTES_MAX: usize = 32 << 10;

/// How requests for connections and ports are answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers {
    /// So many succeed at first.
    pub(crate) successes: u32,
    /// Then so many fail; all others succeed.
    pub(crate) failures: u32,
    /// As soon as they are requested; else when the client has sent everything, and ended.
    pub(crate) at_once: bool,
}

/// Any bytes for a proxy: the pieces make no difference, and the rules are kept. The first byte selects
/// how requests are answered, the second the length of pieces.
pub(crate) fn run(make: &dyn Fn() -> Box<dyn Conversation>, data: &[u8]) {
    let Some((&[how, piece], said)) = data.split_first_chunk() else { return };
    let said = &said[..said.len().min(SAID_BYTES_MAX)];
    let answers = Answers {
        successes: u32::from(how >> 3 & 3),
        failures: u32::from(how >> 1 & 3),
        at_once: how & 1 == 1,
    };
    let pieces = said.chunks(1 + usize::from(piece));
    let in_pieces = talk(make, pieces, answers);
    let whole = talk(make, [said].into_iter(), Answers { at_once: false, ..answers });
    assert_eq!(in_pieces, whole, "in pieces of {}, {answers:?}", 1 + usize::from(piece));
}

/// The steps when a client sends this and ends: neighbours of one kind are joined, and
/// [`ProxyStep::Pass`] comes last.
pub(crate) fn talk<'a>(
    make: &dyn Fn() -> Box<dyn Conversation>,
    pieces: impl Iterator<Item = &'a [u8]>,
    answers: Answers,
) -> Vec<ProxyStep> {
    let mut talk = Talk {
        conversation: make(),
        steps: Vec::new(),
        answers,
        asked: VecDeque::new(),
        ports: Vec::new(),
        connected: false,
        passed: false,
        over: false,
    };
    talk.tell(|conversation, steps| conversation.begin(steps));
    let mut said_bytes = 0;
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        said_bytes += piece.len();
        if talk.passed {
            talk.take(ProxyStep::ToServer(piece.to_vec()));
        } else {
            talk.tell(|conversation, steps| conversation.from_client(piece, steps));
        }
        if answers.at_once {
            talk.answer();
        }
    }
    if talk.passed {
        talk.take(ProxyStep::EndServer);
    } else {
        talk.tell(|conversation, steps| conversation.client_ended(steps));
        talk.answer();
    }
    talk.check_the_end(said_bytes);
    talk.steps
}

/// A pending request of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Connected,
    HostChecked,
    PortOpened {
        request: u32,
        /// Of a port whose client is awaited.
        then: Option<PortUse>,
    },
    PortUsed {
        request: u32,
        then: PortUse,
    },
}

struct Talk {
    conversation: Box<dyn Conversation>,
    steps: Vec<ProxyStep>,
    answers: Answers,
    /// Its unanswered requests.
    asked: VecDeque<Asked>,
    /// The numbers of ports that are open or requested.
    ports: Vec<u32>,
    connected: bool,
    passed: bool,
    /// It passed or ended: no more steps.
    over: bool,
}

impl Talk {
    fn tell(&mut self, what: impl FnOnce(&mut dyn Conversation, &mut Vec<ProxyStep>)) {
        let mut steps = Vec::new();
        what(&mut *self.conversation, &mut steps);
        for step in steps {
            assert!(!self.over, "{step:?} after the end");
            match &step {
                ProxyStep::Connect(target) => {
                    let connects = self.asked.contains(&Asked::Connected);
                    assert!(!connects, "{target} while another is being connected");
                    assert!(target.port != 0, "{target}");
                    check_host(&target.host);
                    self.asked.push_back(Asked::Connected);
                }
                ProxyStep::CheckHost(target) => {
                    let checks = self.asked.contains(&Asked::HostChecked);
                    assert!(!checks, "{target} while another is being checked");
                    check_host(&target.host);
                    self.asked.push_back(Asked::HostChecked);
                }
                ProxyStep::OpenPort { request, .. } => self.ask_port(*request, None),
                ProxyStep::ListenHere { request, then, .. } => self.ask_port(*request, Some(*then)),
                ProxyStep::ClosePort(request) => self.close_port(*request),
                ProxyStep::ToServer(_) | ProxyStep::EndServer => {
                    assert!(self.connected, "{step:?}")
                }
                ProxyStep::Pass => {
                    assert!(self.connected);
                    self.passed = true;
                }
                _ => {}
            }
            self.over |=
                matches!(step, ProxyStep::Pass | ProxyStep::EndClient | ProxyStep::Reset(_));
            self.take(step);
        }
    }

    fn take(&mut self, step: ProxyStep) {
        let passes = self.steps.pop_if(|last| *last == ProxyStep::Pass);
        match (self.steps.last_mut(), &step) {
            (Some(ProxyStep::ToClient(said)), ProxyStep::ToClient(more))
            | (Some(ProxyStep::ToServer(said)), ProxyStep::ToServer(more)) => said.extend(more),
            _ => self.steps.push(step),
        }
        self.steps.extend(passes);
    }

    fn ask_port(&mut self, request: u32, then: Option<PortUse>) {
        assert!(!self.ports.contains(&request), "port {request} is there already");
        self.ports.push(request);
        self.asked.push_back(Asked::PortOpened { request, then });
    }

    fn close_port(&mut self, request: u32) {
        let at = self.ports.iter().position(|&port| port == request);
        self.ports.swap_remove(at.unwrap_or_else(|| panic!("there is no port {request}")));
        let is_other = |asked: &Asked| match asked {
            Asked::PortOpened { request: of, .. } | Asked::PortUsed { request: of, .. } => {
                *of != request
            }
            Asked::Connected | Asked::HostChecked => true,
        };
        self.asked.retain(is_other);
    }

    fn answer(&mut self) {
        while !self.over
            && let Some(asked) = self.asked.pop_front()
        {
            let succeeds = self.succeeds();
            match asked {
                Asked::Connected => {
                    self.connected = succeeds;
                    let servers = (address(SERVER), address(OWN));
                    let result = if succeeds { Ok(servers) } else { Err(unreached()) };
                    self.tell(|conversation, steps| conversation.connected(result, steps));
                }
                Asked::HostChecked => {
                    let result =
                        if succeeds { Ok(vec![address(SERVER)]) } else { Err(unreached()) };
                    self.tell(|conversation, steps| conversation.host_checked(result, steps));
                }
                Asked::PortOpened { request, then } => {
                    let result = if succeeds { Ok(address(PORT)) } else { Err("no port".into()) };
                    match then {
                        Some(then) if succeeds => {
                            self.asked.push_back(Asked::PortUsed { request, then });
                        }
                        None if succeeds => {}
                        _ => self.close_port(request),
                    }
                    self.tell(|conversation, steps| {
                        conversation.port_opened(request, result, steps);
                    });
                }
                Asked::PortUsed { request, then } => {
                    let result = if succeeds { Ok(address(GUEST)) } else { Err("nobody".into()) };
                    self.connected |= succeeds && then == PortUse::BeServer;
                    self.close_port(request);
                    self.tell(|conversation, steps| conversation.port_used(request, result, steps));
                }
            }
        }
    }

    fn succeeds(&mut self) -> bool {
        let Answers { successes, failures, .. } = &mut self.answers;
        match (*successes, *failures) {
            (0, 0) => true,
            (0, _) => {
                *failures -= 1;
                false
            }
            _ => {
                *successes -= 1;
                true
            }
        }
    }

    /// A client that has ended keeps nothing going, and nothing that comes later is answered.
    fn check_the_end(&mut self, said_bytes: usize) {
        assert!(self.over, "{:?}", self.steps);
        assert!(!self.conversation.awaits_client());
        let to_client =
            |step: &ProxyStep| if let ProxyStep::ToClient(said) = step { said.len() } else { 0 };
        let answered_bytes: usize = self.steps.iter().map(to_client).sum();
        assert!(answered_bytes <= 4096 + 4 * said_bytes, "{answered_bytes} for {said_bytes}");
        self.tell(|conversation, steps| {
            conversation.from_client(b"\x05\x01\0quit\r\n", steps);
            conversation.from_server(b"more", steps);
            conversation.connected(Ok((address(SERVER), address(OWN))), steps);
            conversation.host_checked(Ok(vec![address(SERVER)]), steps);
            conversation.port_opened(1, Ok(address(PORT)), steps);
            conversation.port_used(1, Ok(address(GUEST)), steps);
            conversation.server_ended(steps);
            conversation.client_ended(steps);
            conversation.timed_out(steps);
        });
    }
}

fn check_host(host: &str) {
    assert!((1..=255).contains(&host.len()), "{host}");
    assert!(!host.contains(char::is_control), "{host:?}");
}

fn unreached() -> Unreached {
    Unreached::Refused("nobody listens".into())
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
