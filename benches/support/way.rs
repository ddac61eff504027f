//! The ways from client to server that are compared.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sockmux_uring::demo::cpu::Thread;

use super::epoll_relay::EpollRelay;
use super::{ours, tokio_uring_relay};

/// A way to one server, ready for any number of connections, until the process ends.
pub(crate) struct Way {
    address: SocketAddr,
    relays: Vec<Thread>,
}

/// Sets up a way to a server.
pub(crate) type Start = fn(SocketAddr) -> Result<Way, Box<dyn Error>>;

/// Every way, in the order of the table. The others are compared with the first.
pub(crate) const WAYS: [(&str, Start); 9] = [
    ("direct", direct),
    ("epoll copy, 1 hop", epoll_one_hop),
    ("tokio-uring, 1 hop", tokio_uring_one_hop),
    ("plain relay, 1 hop", plain_relay),
    ("epoll copy, 2 hops", epoll_two_hops),
    ("tunnel", tunnel),
    ("tunnel, copy forced", tunnel_by_copy),
    ("tunnel, splice forced", tunnel_by_splice),
    ("tunnel, epoll engine", tunnel_on_epoll),
];

impl Way {
    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing is on it.
    pub(crate) fn is_direct(&self) -> bool {
        self.relays.is_empty()
    }

    /// Processor time of the relays so far, with that of the kernel's workers for them.
    pub(crate) fn relay_cpu_time(&self) -> io::Result<Duration> {
        self.relays.iter().map(|relay| relay.cpu_time()).sum()
    }
}

impl From<(SocketAddr, Vec<Thread>)> for Way {
    fn from((address, relays): (SocketAddr, Vec<Thread>)) -> Self {
        Way { address, relays }
    }
}

fn direct(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok((server, Vec::new()).into())
}

fn epoll_one_hop(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (address, thread) = start_epoll(server)?;
    Ok((address, vec![thread]).into())
}

fn epoll_two_hops(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (between, second) = start_epoll(server)?;
    let (address, first) = start_epoll(between)?;
    Ok((address, vec![first, second]).into())
}

fn tokio_uring_one_hop(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (address, thread) =
        start("tokio-uring", move |ready| tokio_uring_relay::run(server, ready))?;
    Ok((address, vec![thread]).into())
}

fn plain_relay(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (address, thread) = ours::plain_relay(server)?;
    Ok((address, vec![thread]).into())
}

fn tunnel(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok(ours::tunnel(server, &[])?.into())
}

fn tunnel_by_copy(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok(ours::tunnel(server, &["SOXCONF=bulk:copy"])?.into())
}

fn tunnel_by_splice(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok(ours::tunnel(server, &["SOXCONF=bulk:splice"])?.into())
}

fn tunnel_on_epoll(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok(ours::tunnel(server, &["--engine=epoll"])?.into())
}

fn start_epoll(target: SocketAddr) -> Result<(SocketAddr, Thread), Box<dyn Error>> {
    start("epoll", move |ready| {
        let relay = EpollRelay::bind(target)?;
        ready(relay.address()?);
        relay.run()
    })
}

/// Runs a relay on a thread of its own; returns once it has reported its address.
pub(crate) fn start(
    name: &'static str,
    relay: impl FnOnce(Box<dyn FnOnce(SocketAddr)>) -> io::Result<()> + Send + 'static,
) -> Result<(SocketAddr, Thread), Box<dyn Error>> {
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        let tell_error = tell.clone();
        let ready = Box::new(move |address| {
            let _ = tell.send(Thread::current().map(|thread| (address, thread)));
        });
        if let Err(error) = relay(ready) {
            eprintln!("{name} relay ended: {error}");
            let _ = tell_error.send(Err(error));
        }
    })?;
    Ok(told.recv()??)
}
