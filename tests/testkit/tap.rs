//! A way between connector and receptor that keeps what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Bytes that passed at once.
#[derive(Debug, Clone)]
pub struct Piece {
    /// From who has connected.
    pub is_up: bool,
    pub bytes: Vec<u8>,
}

/// Forwards one connection.
pub struct Tap {
    address: SocketAddr,
    pieces: Arc<Mutex<Vec<Piece>>>,
}

impl Tap {
    /// Listens on loopback and forwards to `target`.
    pub fn start(target: SocketAddr) -> Tap {
        Tap::start_with(target, |_| Ok(()))
    }

    /// As [`Tap::start`]; what this reads of the connector does not get through, and what it writes goes to the
    /// receptor first.
    pub fn start_with(
        target: SocketAddr,
        first: impl FnOnce([&TcpStream; 2]) -> std::io::Result<()> + Send + 'static,
    ) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let pieces = Arc::default();
        let kept = Arc::clone(&pieces);
        std::thread::spawn(move || {
            let (client, _) = listener.accept()?;
            let server = TcpStream::connect(target)?;
            first([&client, &server])?;
            let ways = [(true, client.try_clone()?, server.try_clone()?), (false, server, client)];
            for (is_up, from, to) in ways {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || forward(is_up, from, to, &kept));
            }
            std::io::Result::Ok(())
        });
        Tap { address, pieces }
    }

    /// Where the connector has to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far, in this order.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces.lock().unwrap().clone()
    }

    /// What has passed one way.
    pub fn bytes(&self, is_up: bool) -> Vec<u8> {
        let pieces = self.pieces();
        pieces.iter().filter(|piece| piece.is_up == is_up).flat_map(|p| p.bytes.clone()).collect()
    }
}

/// Each piece is kept before it is passed on: what one end answers to stands before the answer.
fn forward(
    is_up: bool,
    mut from: TcpStream,
    mut to: TcpStream,
    kept: &Mutex<Vec<Piece>>,
) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer[..count].to_vec();
        kept.lock().unwrap().push(Piece { is_up, bytes });
        to.write_all(&buffer[..count])?;
    }
    to.shutdown(Shutdown::Write)
}
