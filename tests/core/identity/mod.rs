//! Who is let in: from words of the command line, by way of files, to handshakes in memory.

mod authority;
mod keys;
mod peers_file;
mod secret;

use std::path::Path;

use rustls::{ClientConnection, Connection, ServerConnection};
use sockmux_uring::cli::files::Disk;
use sockmux_uring::cli::invocation::{self, Command};
use sockmux_uring::cli::keygen::{Keygen, Made};
use sockmux_uring::identity::{self, IdentityError, keygen};
use sockmux_uring::tls::settings::{ALPN, Peer, Role, Settings};
use tempfile::TempDir;

/// A folder for the keys of one test.
struct Keys(TempDir);

impl Keys {
    fn new() -> Keys {
        Keys(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    /// A file that only its owner may read, as keys have to be.
    fn write_private(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).expect("its mode");
    }

    /// Makes a key; gives its fingerprint.
    fn make(&self, name: &str) -> String {
        let keygen = Keygen { path: self.path(name).into(), what: Made::Key };
        let made = keygen::make(&keygen).expect("a new key");
        made.fingerprint.expect("a key has a fingerprint")
    }

    /// The accepting end, by items of `TLSCONF=` in which `@` is the folder.
    fn accepts(&self, conf: &str) -> Settings {
        self.load(&["-P:9000", "DEST=h:1"], conf).expect("the accepting end")
    }

    /// The dialling end.
    fn dials(&self, conf: &str) -> Settings {
        self.load(&["SERVER=sockmux://hub.example:9000", "PORT=1"], conf).expect("the dialling end")
    }

    fn load(&self, words: &[&str], conf: &str) -> Result<Settings, IdentityError> {
        let conf = format!("TLSCONF={}", conf.replace('@', self.0.path().to_str().expect("text")));
        let words = ["sockmux-uring"].iter().chain(words).map(Into::into).chain([conf.into()]);
        let invocation = invocation::parse(words, &Disk, &mut |_| unreachable!());
        match invocation.unwrap_or_else(|failure| panic!("{failure}")).command {
            Command::Run(plan) => identity::load(&plan.encryption.expect("encryption")),
            other => panic!("{other:?}"),
        }
    }
}

/// A handshake to its end.
struct Handshake {
    /// The dialling end, then the accepting one.
    ends: [Connection; 2],
    errors: [Option<rustls::Error>; 2],
}

fn shake(dials: &Role, accepts: &Role) -> Handshake {
    let ends = [dials, accepts].map(|role| match role.clone() {
        Role::Client { config, name } => ClientConnection::new(config, name).unwrap().into(),
        Role::Server { config } => ServerConnection::new(config).unwrap().into(),
    });
    let mut handshake = Handshake { ends, errors: [None, None] };
    while handshake.pass(0) | handshake.pass(1) {}
    handshake
}

impl Handshake {
    /// Passes what one end has to send to the other one.
    fn pass(&mut self, from: usize) -> bool {
        let (mut bytes, to) = (Vec::new(), 1 - from);
        while self.ends[from].wants_write() {
            self.ends[from].write_tls(&mut bytes).expect("to memory");
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && self.errors[to].is_none() {
            self.ends[to].read_tls(&mut rest).expect("from memory");
            self.errors[to] = self.ends[to].process_new_packets().err();
        }
        !bytes.is_empty()
    }

    /// The errors of both ends, as they are logged.
    #[track_caller]
    fn refusals(&self) -> [String; 2] {
        let text = |error: &Option<rustls::Error>| error.as_ref().map(ToString::to_string);
        let [Some(dials), Some(accepts)] = [0, 1].map(|end| text(&self.errors[end])) else {
            panic!("one end is content: {:?}", self.errors);
        };
        [dials, accepts]
    }
}

/// Both ends' peers after a handshake that succeeds: of the dialling end, then of the accepting one.
#[track_caller]
fn meet(dials: &Settings, accepts: &Settings) -> [Peer; 2] {
    let Handshake { ends, errors } = shake(dials.role(), accepts.role());
    assert_eq!(errors, [None, None]);
    for end in &ends {
        assert!(!end.is_handshaking());
        assert_eq!(end.alpn_protocol(), Some(ALPN));
    }
    let peer = |settings: &Settings, end: &Connection| {
        settings.peer(end.peer_certificates().expect("both show one")).expect("known")
    };
    [peer(dials, &ends[0]), peer(accepts, &ends[1])]
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
