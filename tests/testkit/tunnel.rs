//! Two programs joined by one persistent connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::link_proxy::LinkProxy;
use super::net::connect;
use super::program::Program;
use super::protocol::Protocol;
use super::{DEADLINE, eventually};

/// A receptor and a connector whose tunnel is up.
pub struct Tunnel {
    /// The end that accepted the persistent connection.
    pub receptor: Program,
    /// The end that made it.
    pub connector: Program,
    /// Where the receptor takes persistent connections.
    pub address: SocketAddr,
}

/// The log of an end whose streams wait for another connection.
pub const BROKE: &str = "the connection broke: its streams wait for another one";
/// The log when that has come.
pub const GOES_ON: &str = "the tunnel goes on over another connection";

/// Streams end with the connection that they are in.
pub const NO_RESUMPTION: &str = "TIMEOUT=resume:0";

impl Tunnel {
    /// Starts both ends with these words besides those that join them, and waits until the
    /// tunnel is up at both.
    pub fn start<R: AsRef<str>, C: AsRef<str>>(
        protocol: Protocol,
        receptor: &[R],
        connector: &[C],
    ) -> Tunnel {
        let receptor = start_receptor("127.0.0.1:0", receptor);
        let address = receptor.address_of("receptor listening");
        Tunnel::join(protocol, receptor, address, address, connector)
    }

    /// As [`Tunnel::start`], with a proxy between the two that can spoil the connection.
    pub fn start_spoilable<R: AsRef<str>, C: AsRef<str>>(
        protocol: Protocol,
        receptor: &[R],
        connector: &[C],
    ) -> (Tunnel, LinkProxy) {
        let receptor = start_receptor("127.0.0.1:0", receptor);
        let address = receptor.address_of("receptor listening");
        let proxy = LinkProxy::start(address);
        let tunnel = Tunnel::join(protocol, receptor, address, proxy.address(), connector);
        (tunnel, proxy)
    }

    /// Starts the connector to a receptor that runs already and is reached at `path`; both must log
    /// that they speak `protocol`.
    pub fn join<C: AsRef<str>>(
        protocol: Protocol,
        receptor: Program,
        address: SocketAddr,
        path: SocketAddr,
        connector: &[C],
    ) -> Tunnel {
        let connector = start_connector(protocol, path, connector);
        for program in [&receptor, &connector] {
            assert_eq!(program.wait_for("tunnel up")["protocol"], protocol.name());
        }
        Tunnel { receptor, connector, address }
    }

    /// The usual shape: one entrance at the connector, one exit at the receptor.
    pub fn to(protocol: Protocol, destination: SocketAddr) -> Tunnel {
        Tunnel::start(protocol, &[format!("DEST={destination}")], &["PORT=127.0.0.1:0"])
    }

    /// As [`Tunnel::to`], with streams that end with their connection.
    pub fn without_resumption(protocol: Protocol, destination: SocketAddr) -> Tunnel {
        Tunnel::start(
            protocol,
            &[format!("DEST={destination}")],
            &["PORT=127.0.0.1:0", NO_RESUMPTION],
        )
    }

    /// The first entrance of the connector.
    pub fn entrance(&self) -> SocketAddr {
        self.connector.address_of("entrance listening")
    }
}

/// Has a few streams, one after another, whose server ends first ([`ends_first`](super::servers::Server::ends_first)). Panics unless
/// each has soon left no socket at either end, though nothing else goes on there.
pub fn check_nothing_is_left(ends: [&Program; 2], entrance: SocketAddr) {
    // Far below the keep-alive's interval, which would bring the turn in which it is noticed.
    const SOON: Duration = Duration::from_secs(5);
    for end in ends {
        end.wait_for("tunnel up");
    }
    let sockets = || ends.map(Program::sockets);
    let before = sockets();
    for round in 0..3 {
        let mut client = connect(entrance);
        client.write_all(b"x").expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the server's end of data");
        assert_eq!(answer, "bye");
        assert!(sockets() != before, "the stream is there until its client ends");
        drop(client);
        let back = eventually(SOON, || sockets() == before);
        assert!(back, "stream {round}: {before:?} sockets before it, {:?} after", sockets());
    }
}

/// Starts a receptor on `bind`. A port of a process that was killed is free a moment later than the
/// process has ended: the kernel ends a ring, which holds the socket, behind that.
pub fn start_receptor<S: AsRef<str>>(bind: &str, words: &[S]) -> Program {
    if let Ok(address) = bind.parse::<SocketAddr>() {
        let free = || TcpListener::bind(address).is_ok();
        assert!(eventually(DEADLINE, free), "{address} is in use");
    }
    let mut all = vec![format!("-P{bind}")];
    all.extend(words.iter().map(|word| word.as_ref().to_owned()));
    Program::start(&all)
}

/// Starts a connector to `receptor` that speaks `protocol` with one of ours.
pub fn start_connector<S: AsRef<str>>(
    protocol: Protocol,
    receptor: SocketAddr,
    words: &[S],
) -> Program {
    let mut all = vec![format!("SERVER=sockmux://{receptor}")];
    all.extend(protocol.words());
    all.extend(words.iter().map(|word| word.as_ref().to_owned()));
    Program::start(&all)
}
