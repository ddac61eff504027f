//! A client and a server of FTP by a script, and the engine's part between them. The parent module
//! imports the types.

use std::net::{IpAddr, SocketAddr};

use super::ftp::{Ftp, FtpConfig};
use super::{Conversation, Lead, PortUse, ProxyStep, Target, Unreached};

/// Ports are numbered from here: those that the peer opens, and ours.
const PEERS_PORTS: u16 = 40_000;
const OWN_PORTS: u16 = 50_000;

/// The parties, and their addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    /// The client names the server.
    pub(crate) asks: bool,
    pub(crate) server: &'static str,
    pub(crate) own: &'static str,
    pub(crate) client: Option<&'static str>,
    /// Where the peer opens ports.
    pub(crate) entrance: &'static str,
}

impl Scene {
    /// An exit that leads to one server, all by IPv4.
    pub(crate) const PLAIN: Scene = Scene {
        asks: false,
        server: "192.0.2.1",
        own: "198.51.100.7",
        client: Some("203.0.113.5"),
        entrance: "10.0.0.9",
    };

    fn of(bits: u8) -> Scene {
        let (server, own) = match bits >> 1 & 3 {
            0 => ("2001:db8::1", "2001:db8:7::7"),
            1 => ("::ffff:192.0.2.1", "::ffff:198.51.100.7"),
            _ => (Scene::PLAIN.server, Scene::PLAIN.own),
        };
        let client = match bits >> 3 & 3 {
            0 => None,
            1 => Some("2001:db8:c::5"),
            _ => Scene::PLAIN.client,
        };
        let entrance = match bits >> 5 & 3 {
            0 => "2001:db8:9::9",
            1 => "::ffff:10.0.0.9",
            2 => "::",
            _ => Scene::PLAIN.entrance,
        };
        Scene { asks: bits & 1 == 1, server, own, client, entrance }
    }

    pub(crate) fn conversation(&self) -> Ftp {
        let server = (!self.asks).then(|| Target { host: "ftp.example".into(), port: 21 });
        let config = FtpConfig { server, banner_host: "relay".into() };
        Ftp::new(config, self.client.map(ip))
    }
}

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
    /// The requested port is open.
    PortOpens,
    /// It cannot be opened.
    PortFails,
    /// The port here is used.
    PortUsed,
    TimesOut,
}

/// Any script: pieces make no difference, the rules are kept, and it ends when both sides do. The first
/// byte selects the scene, the second the length of pieces; then follow events, those with bytes with
/// their count before.
pub(crate) fn run(data: &[u8]) {
    let Some((&[scene, piece], mut rest)) = data.split_first_chunk() else { return };
    let mut events = Vec::new();
    while let Some((&kind, behind)) = rest.split_first() {
        rest = behind;
        let mut bytes = || {
            let (&count, behind) = rest.split_first().unwrap_or((&0, &[]));
            let (bytes, behind) = behind.split_at(behind.len().min(count.into()));
            rest = behind;
            bytes
        };
        events.push(match kind % 12 {
            0 | 1 => Event::Client(bytes()),
            2 | 3 => Event::Server(bytes()),
            4 => Event::Connected,
            5 => Event::Fails,
            6 | 7 => Event::PortOpens,
            8 => Event::PortFails,
            9 => Event::PortUsed,
            10 => Event::ServerEnds,
            _ if kind < 64 => Event::TimesOut,
            _ => Event::ClientEnds,
        });
    }
    events.extend([Event::ClientEnds, Event::Fails, Event::PortFails, Event::ServerEnds]);
    let (scene, piece) = (Scene::of(scene), 1 + usize::from(piece));
    let whole = play(&scene, &events, |_, bytes| vec![bytes]);
    let in_pieces = play(&scene, &events, |_, bytes| bytes.chunks(piece).collect());
    assert_eq!(in_pieces, whole, "in pieces of {piece}: {events:?}");
    assert_eq!(whole.last(), Some(&ProxyStep::EndClient), "{events:?}");
}

/// Plays the script, the bytes of each event (it is counted) in pieces by choice. Returns the steps,
/// neighbours of one kind joined.
pub(crate) fn play<'a>(
    scene: &Scene,
    events: &[Event<'a>],
    split: impl Fn(usize, &'a [u8]) -> Vec<&'a [u8]>,
) -> Vec<ProxyStep> {
    let mut play = Play {
        conversation: scene.conversation(),
        scene: *scene,
        steps: Vec::new(),
        connects: false,
        connected: false,
        may_write: false,
        client_ended: false,
        asked: None,
        open: None,
        own_port: 0,
        said_bytes: 0,
        over: false,
    };
    play.tell(|conversation, steps| conversation.begin(steps));
    for (index, event) in events.iter().enumerate() {
        match *event {
            Event::Client(bytes) | Event::Server(bytes) => {
                play.said_bytes += bytes.len();
                let client = matches!(event, Event::Client(_));
                split(index, bytes).into_iter().for_each(|piece| play.says(client, piece));
            }
            event => play.happens(event),
        }
    }
    play.finish()
}

struct Play {
    conversation: Ftp,
    scene: Scene,
    steps: Vec<ProxyStep>,
    /// A connect is requested and not answered.
    connects: bool,
    /// A server is connected, and has not ended.
    connected: bool,
    /// A server is connected, and has not been sent the end.
    may_write: bool,
    client_ended: bool,
    /// A port that is requested and not answered, and its number.
    asked: Option<(u32, u16)>,
    /// One that is open, for all that the conversation knows.
    open: Option<u32>,
    /// The last port here.
    own_port: u16,
    said_bytes: usize,
    over: bool,
}

impl Play {
    fn says(&mut self, client: bool, bytes: &[u8]) {
        if client && !self.client_ended {
            self.tell(|conversation, steps| conversation.from_client(bytes, steps));
        } else if !client && self.connected {
            self.tell(|conversation, steps| conversation.from_server(bytes, steps));
        }
    }

    fn happens(&mut self, event: Event<'_>) {
        match event {
            Event::Connected if self.connects => {
                self.connects = false;
                (self.connected, self.may_write) = (true, true);
                let at = |host: &str, port| SocketAddr::new(ip(host), port);
                let addresses = (at(self.scene.server, 21), at(self.scene.own, 1234));
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
            Event::PortOpens => {
                let Some((request, port)) = self.asked.take() else { return };
                self.open = Some(request);
                let host = if port < OWN_PORTS { self.scene.entrance } else { self.scene.own };
                let result = Ok(SocketAddr::new(ip(host), port));
                self.tell(|conversation, steps| conversation.port_opened(request, result, steps));
            }
            Event::PortFails => {
                let Some((request, _)) = self.asked.take() else { return };
                let result = Err("there are too many".into());
                self.tell(|conversation, steps| conversation.port_opened(request, result, steps));
            }
            Event::PortUsed => {
                let Some(request) = self.open.take() else { return };
                let result = Ok(SocketAddr::new(ip(self.scene.server), 20));
                self.tell(|conversation, steps| conversation.port_used(request, result, steps));
            }
            Event::TimesOut => self.tell(|conversation, steps| conversation.timed_out(steps)),
            _ => {}
        }
    }

    fn tell(&mut self, what: impl FnOnce(&mut Ftp, &mut Vec<ProxyStep>)) {
        let mut steps = Vec::new();
        what(&mut self.conversation, &mut steps);
        for step in steps {
            assert!(!self.over, "{step:?} after the end");
            assert!(
                self.asked.is_none() || step == ProxyStep::EndClient || is_said(&step),
                "{step:?}"
            );
            self.check(&step);
            self.over |= step == ProxyStep::EndClient;
            match (self.steps.last_mut(), step) {
                (Some(ProxyStep::ToClient(said)), ProxyStep::ToClient(more))
                | (Some(ProxyStep::ToServer(said)), ProxyStep::ToServer(more)) => said.extend(more),
                (_, step) => self.steps.push(step),
            }
        }
    }

    fn check(&mut self, step: &ProxyStep) {
        let canonical = |host: &str| ip(host).to_canonical();
        match step {
            ProxyStep::Connect(target) => {
                assert!(!self.connects && !self.connected, "{target} is another server");
                assert!(target.port != 0 && (1..=255).contains(&target.host.len()), "{target}");
                assert!(!target.host.contains(char::is_control), "{target:?}");
                self.connects = true;
            }
            ProxyStep::ToServer(bytes) => {
                assert!(self.may_write, "{step:?}");
                assert!(bytes.ends_with(b"\r\n"), "{step:?}");
                for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                    self.check_command(line);
                }
            }
            ProxyStep::EndServer => {
                assert!(self.may_write, "{step:?}");
                self.may_write = false;
            }
            ProxyStep::OpenPort { request, lead: Lead::Server(address) } => {
                assert_eq!(address.ip(), canonical(self.scene.server));
                assert!(address.port() >= 1024, "{address}");
                self.ask(*request, PEERS_PORTS);
            }
            ProxyStep::ListenHere { request, own, from, then: PortUse::CallClient(port) } => {
                assert_eq!(*own, Some(canonical(self.scene.own)));
                assert_eq!(*from, canonical(self.scene.server));
                assert!(*port >= 1024 && self.scene.client.is_some(), "{step:?}");
                self.ask(*request, OWN_PORTS);
                self.own_port = OWN_PORTS + *request as u16;
            }
            ProxyStep::ClosePort(request) => assert_eq!(self.open.take(), Some(*request)),
            ProxyStep::ToClient(_) | ProxyStep::Note(_) | ProxyStep::EndClient => {}
            _ => panic!("{step:?}"),
        }
    }

    fn ask(&mut self, request: u32, base: u16) {
        assert_eq!((self.open, self.asked), (None, None));
        self.asked = Some((request, base + request as u16));
    }

    /// However a server parses a line, it must not find an address in it that is not ours, nor bytes that
    /// hide later ones.
    fn check_command(&self, line: &[u8]) {
        let ours = match ip(self.scene.own).to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                let [high, low] = self.own_port.to_be_bytes();
                format!("PORT {a},{b},{c},{d},{high},{low}\r\n")
            }
            IpAddr::V6(ip) => format!("EPRT |2|{ip}|{}|\r\n", self.own_port),
        };
        let mut line = line;
        while let [0xff, 241..=249, behind @ ..] = line {
            line = behind;
        }
        for command_bytes in [0, 2, 3] {
            let text = without_telnet(line, command_bytes);
            let text = text.trim_ascii_start();
            let mut words = text.splitn(2, |byte| !byte.is_ascii_alphanumeric());
            match &words.next().unwrap_or_default().to_ascii_uppercase()[..] {
                b"PORT" | b"EPRT" => assert_eq!(text, ours.as_bytes()),
                b"AUTH" | b"PROT" | b"PBSZ" | b"LPRT" | b"LPSV" | b"CPSV" | b"SPSV" => {
                    panic!("{} reaches the server", line.escape_ascii())
                }
                _ => {}
            }
        }
    }

    fn finish(mut self) -> Vec<ProxyStep> {
        let answered_bytes = |step: &ProxyStep| match step {
            ProxyStep::ToClient(said) => said.len(),
            _ => 0,
        };
        let answered_bytes: usize = self.steps.iter().map(answered_bytes).sum();
        assert!(answered_bytes <= 4096 + 64 * self.said_bytes, "{answered_bytes}");
        if self.over {
            assert!(!self.conversation.awaits_client() && !self.conversation.takes_client());
            self.tell(|conversation, steps| {
                conversation.from_client(b"USER a@b\r\n", steps);
                conversation.from_server(b"220 Hello\r\n", steps);
                conversation.connected(Err(Unreached::Other("too late".into())), steps);
                conversation.port_opened(0, Err("too late".into()), steps);
                conversation.server_ended(steps);
                conversation.client_ended(steps);
                conversation.timed_out(steps);
            });
        }
        self.steps
    }
}

fn is_said(step: &ProxyStep) -> bool {
    matches!(step, ProxyStep::ToClient(_) | ProxyStep::Note(_))
}

/// A line without telnet commands, for a parser that takes them for so many bytes.
fn without_telnet(line: &[u8], command_bytes: usize) -> Vec<u8> {
    let (mut text, mut rest) = (Vec::new(), line);
    while let Some((&byte, behind)) = rest.split_first() {
        if byte == 0xff && command_bytes > 0 {
            rest = rest.get(command_bytes..).unwrap_or_default();
        } else {
            text.push(byte);
            rest = behind;
        }
    }
    text
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
