//! The ways from client to server that are compared.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sockmux_uring::demo::cpu::Thread;
use sockmux_uring::demo::relays::Tunnel;

use super::epoll_relay::EpollRelay;
use super::tokio_uring_relay;

/// A way to one server, ready for any number of connections, until the process ends.
pub(crate) struct Way {
    address: SocketAddr,
    relays: Relays,
}

enum Relays {
    Threads(Vec<Thread>),
    Tunnel(Tunnel),
}

/// Sets up a way to a server.
pub(crate) type Start = fn(SocketAddr) -> Result<Way, Box<dyn Error>>;

/// Every way, in the order of the table. The first is what the others are compared with.
pub(crate) const WAYS: [(&str, Start); 5] = [
    ("direct", direct),
    ("epoll copy, 1 hop", epoll_one_hop),
    ("epoll copy, 2 hops", epoll_two_hops),
    ("tokio-uring, 1 hop", tokio_uring_one_hop),
    ("sockmux-uring tunnel", tunnel),
];

impl Way {
    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time of the relays so far.
    pub(crate) fn relay_cpu_time(&self) -> Result<Duration, Box<dyn Error>> {
        match &self.relays {
            Relays::Threads(threads) => {
                let times = threads.iter().map(|thread| thread.cpu_time());
                Ok(times.sum::<io::Result<Duration>>()?)
            }
            Relays::Tunnel(tunnel) => Ok(tunnel.cpu_time()?),
        }
    }
}

fn direct(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    Ok(Way { address: server, relays: Relays::Threads(Vec::new()) })
}

fn epoll_one_hop(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (address, thread) = start_epoll(server)?;
    Ok(Way { address, relays: Relays::Threads(vec![thread]) })
}

fn epoll_two_hops(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (between, second) = start_epoll(server)?;
    let (address, first) = start_epoll(between)?;
    Ok(Way { address, relays: Relays::Threads(vec![first, second]) })
}

fn tokio_uring_one_hop(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let (address, thread) =
        start("tokio-uring", move |ready| tokio_uring_relay::run(server, ready))?;
    Ok(Way { address, relays: Relays::Threads(vec![thread]) })
}

fn tunnel(server: SocketAddr) -> Result<Way, Box<dyn Error>> {
    let tunnel = Tunnel::start(server)?;
    Ok(Way { address: tunnel.entrance(), relays: Relays::Tunnel(tunnel) })
}

fn start_epoll(target: SocketAddr) -> Result<(SocketAddr, Thread), Box<dyn Error>> {
    start("epoll", move |ready| {
        let relay = EpollRelay::bind(target)?;
        ready(relay.address()?);
        relay.run()
    })
}

/// Runs a relay on a thread of its own; returns once it has said where it listens.
fn start(
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
