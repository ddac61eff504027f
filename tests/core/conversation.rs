//! A client that holds a conversation with a proxy, and the engine's part in it. The parent module
//! says where the types are from.

use std::net::SocketAddr;

use super::{Conversation, Step, Unreached};

/// Where the servers are that are reached, and we towards them.
const SERVER: &str = "192.0.2.1:23";
const OWN: &str = "198.51.100.7:40000";

/// Most that a client says. Beyond `limits::PROXY_HEAD_BYTES` the whole is too much at once where
/// pieces are not.
const SAID_BYTES_MAX: usize = 32 << 10;

/// How connects are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answers {
    /// So many fail; the next succeeds.
    pub(crate) failures: u32,
    /// As soon as they are asked for; else when the client has said everything, and ended.
    pub(crate) at_once: bool,
}

/// Any bytes for a proxy: the pieces make no difference, and the rules are kept. The first byte says
/// how connects are answered, the second how long pieces are.
pub(crate) fn run(make: &dyn Fn() -> Box<dyn Conversation>, data: &[u8]) {
    let Some((&[how, piece], said)) = data.split_first_chunk() else { return };
    let said = &said[..said.len().min(SAID_BYTES_MAX)];
    let answers = Answers { failures: u32::from(how >> 1 & 3), at_once: how & 1 == 1 };
    let pieces = said.chunks(1 + usize::from(piece));
    let in_pieces = talk(make, pieces, answers);
    let whole = talk(make, [said].into_iter(), Answers { at_once: false, ..answers });
    assert_eq!(in_pieces, whole, "in pieces of {}, {answers:?}", 1 + usize::from(piece));
}

/// What comes out when a client says this and ends: neighbours of one kind are joined, and
/// [`Step::Pass`] comes last.
pub(crate) fn talk<'a>(
    make: &dyn Fn() -> Box<dyn Conversation>,
    pieces: impl Iterator<Item = &'a [u8]>,
    answers: Answers,
) -> Vec<Step> {
    let mut talk = Talk {
        conversation: make(),
        steps: Vec::new(),
        answers,
        connects: false,
        connected: false,
        passed: false,
        over: false,
    };
    talk.tell(|conversation, steps| conversation.begin(steps));
    let mut said_bytes = 0;
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        said_bytes += piece.len();
        if talk.passed {
            talk.take(Step::ToServer(piece.to_vec()));
        } else {
            talk.tell(|conversation, steps| conversation.from_client(piece, steps));
        }
        if answers.at_once {
            talk.answer();
        }
    }
    if talk.passed {
        talk.take(Step::EndServer);
    } else {
        talk.tell(|conversation, steps| conversation.client_ended(steps));
        talk.answer();
    }
    talk.check_the_end(said_bytes);
    talk.steps
}

struct Talk {
    conversation: Box<dyn Conversation>,
    steps: Vec<Step>,
    answers: Answers,
    /// A connect is asked for and not answered.
    connects: bool,
    connected: bool,
    passed: bool,
    /// It passed or ended: no more steps.
    over: bool,
}

impl Talk {
    fn tell(&mut self, what: impl FnOnce(&mut dyn Conversation, &mut Vec<Step>)) {
        let mut steps = Vec::new();
        what(&mut *self.conversation, &mut steps);
        for step in steps {
            assert!(!self.over, "{step:?} after the end");
            match &step {
                Step::Connect(target) => {
                    assert!(!self.connects, "{target} while another is being connected");
                    assert!(target.port != 0 && (1..=255).contains(&target.host.len()), "{target}");
                    assert!(!target.host.contains(char::is_control), "{target:?}");
                    self.connects = true;
                }
                Step::ToServer(_) | Step::EndServer => assert!(self.connected, "{step:?}"),
                Step::Pass => {
                    assert!(self.connected);
                    self.passed = true;
                }
                _ => {}
            }
            self.over |= matches!(step, Step::Pass | Step::EndClient | Step::Reset(_));
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        let passes = self.steps.pop_if(|last| *last == Step::Pass);
        match (self.steps.last_mut(), &step) {
            (Some(Step::ToClient(said)), Step::ToClient(more))
            | (Some(Step::ToServer(said)), Step::ToServer(more)) => said.extend(more),
            _ => self.steps.push(step),
        }
        self.steps.extend(passes);
    }

    fn answer(&mut self) {
        while self.connects && !self.over {
            self.connects = false;
            let result = if self.answers.failures == 0 {
                self.connected = true;
                Ok((address(SERVER), address(OWN)))
            } else {
                self.answers.failures -= 1;
                Err(Unreached::Refused("nobody listens".into()))
            };
            self.tell(|conversation, steps| conversation.connected(result, steps));
        }
    }

    /// A client that has ended keeps nothing going, and nothing that comes later is answered.
    fn check_the_end(&mut self, said_bytes: usize) {
        assert!(self.over, "{:?}", self.steps);
        assert!(!self.conversation.awaits_client());
        let to_client = |step: &Step| if let Step::ToClient(said) = step { said.len() } else { 0 };
        let answered_bytes: usize = self.steps.iter().map(to_client).sum();
        assert!(answered_bytes <= 4096 + 4 * said_bytes, "{answered_bytes} for {said_bytes}");
        self.tell(|conversation, steps| {
            conversation.from_client(b"\x05\x01\0quit\r\n", steps);
            conversation.from_server(b"more", steps);
            conversation.connected(Ok((address(SERVER), address(OWN))), steps);
            conversation.server_ended(steps);
            conversation.client_ended(steps);
            conversation.timed_out(steps);
        });
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
