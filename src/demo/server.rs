//! The server behind the exit: a thread for each connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::DemoError;
use super::pattern::Pattern;
use super::traffic::{Request, prepare, receive_bulk, send_bulk};
use crate::limits::DEMO_MESSAGE_BYTES;

/// A server on an ephemeral port of 127.0.0.1. It stops accepting when dropped; connections end
/// when their clients do.
#[derive(Debug)]
pub struct PatternServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pattern: Arc<Pattern>,
    stopping: AtomicBool,
    /// The first thing that went wrong on a connection, kept for the client's side to report:
    /// the client itself only sees its connection break.
    failure: Mutex<Option<DemoError>>,
}

impl PatternServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// No port of 127.0.0.1 or no thread to be had.
    pub fn start(pattern: Arc<Pattern>) -> Result<Self, DemoError> {
        let failed = |source| DemoError::io("start the server", source);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            pattern,
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("server".into())
            .spawn(move || accept(&listener, &for_acceptor))
            .map_err(failed)?;
        Ok(PatternServer { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first failure on a connection since the last call. It explains a client's error, if there is
    /// one.
    #[must_use]
    pub fn take_failure(&self) -> Option<DemoError> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for PatternServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // A connection of our own takes the acceptor out of accept(2).
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let for_connection = Arc::clone(shared);
        let started = socket.and_then(|socket| {
            thread::Builder::new().name("server-conn".into()).spawn(move || {
                // The failure is kept before the socket closes, so that a client that sees its
                // connection break finds the reason.
                if let Err(error) = serve(&socket, &for_connection.pattern) {
                    for_connection.keep(error);
                }
                drop(socket);
            })
        });
        if let Err(source) = started {
            shared.keep(DemoError::io("accept a connection at the server", source));
        }
    }
}

impl Shared {
    fn keep(&self, error: DemoError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Serves one connection until its client's request is done.
fn serve(mut socket: &TcpStream, pattern: &Pattern) -> Result<(), DemoError> {
    let failed = |source| DemoError::io("serve a connection", source);
    prepare(socket).map_err(failed)?;
    match Request::read(socket).map_err(failed)? {
        Request::Up { stream, verify } => {
            let received = receive_bulk(socket, pattern, stream, verify)?;
            socket.write_all(&received.to_be_bytes()).map_err(failed)
        }
        Request::Down { stream, duration } => send_bulk(socket, pattern, stream, duration)
            .map(drop)
            .map_err(|source| DemoError::io(format!("send data of stream {stream}"), source)),
        Request::Echo => echo(socket).map_err(failed),
    }
}

fn echo(mut socket: &TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; DEMO_MESSAGE_BYTES];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            n => socket.write_all(&buffer[..n])?,
        }
    }
}
