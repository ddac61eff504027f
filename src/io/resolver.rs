//! Names looked up beside the loop: a few threads that ask the system's resolver, so that a slow
//! name server delays only who waits for it. Names of clients have threads of their own: whoever
//! owns an address may let its name server be slow, and servers are to be found meanwhile.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::{io, thread};

use dns_lookup::getnameinfo;

use crate::cli::plan::Target;
use crate::limits::{ADDRESSES_MAX, RESOLVER_QUEUE, RESOLVER_THREADS};

/// What was found.
pub(crate) enum Answer<T> {
    /// For who asked with this token.
    Addresses { token: T, addresses: io::Result<Vec<SocketAddr>> },
    /// A client's name, if it has one that leads back to it.
    Client { client: IpAddr, name: Option<String> },
}

struct Question<T> {
    token: T,
    target: Target,
}

/// Looks names up. Threads start with the first question and end with the resolver.
pub(crate) struct Resolver<T> {
    questions: Option<SyncSender<Question<T>>>,
    clients: Option<SyncSender<IpAddr>>,
    answers: (Sender<Answer<T>>, Receiver<Answer<T>>),
    wake: UnixStream,
}

impl<T: Send + 'static> Resolver<T> {
    /// `wake` gets a byte for every answer.
    pub(crate) fn new(wake: UnixStream) -> Resolver<T> {
        Resolver { questions: None, clients: None, answers: channel(), wake }
    }

    /// Asks for a name. The answer comes with `token`.
    pub(crate) fn ask(&mut self, token: T, target: &Target) -> io::Result<()> {
        #[cfg(test)]
        if let Some(found) = super::sim::ask(|kernel| kernel.look_up(&target.host)) {
            let of = |ip| SocketAddr::new(ip, target.port);
            if let Some(ips) = found {
                let addresses = Ok(ips.into_iter().map(of).collect());
                let _ = self.answers.0.send(Answer::Addresses { token, addresses });
            }
            return Ok(());
        }
        if self.questions.is_none() {
            self.questions = Some(self.start(|Question { token, target }| Answer::Addresses {
                token,
                addresses: look_up(&target),
            })?);
        }
        send(&self.questions, Question { token, target: target.clone() })
    }

    /// Asks for a client's name.
    pub(crate) fn ask_name(&mut self, client: IpAddr) -> io::Result<()> {
        if self.clients.is_none() {
            let find = |client| Answer::Client { client, name: client_name(client) };
            self.clients = Some(self.start(find)?);
        }
        send(&self.clients, client)
    }

    /// The answers that have come.
    pub(crate) fn answer(&mut self) -> Option<Answer<T>> {
        self.answers.1.try_recv().ok()
    }

    /// Starts threads for questions of one kind.
    fn start<Q: Send + 'static>(&self, find: fn(Q) -> Answer<T>) -> io::Result<SyncSender<Q>> {
        let (sender, receiver) = sync_channel::<Q>(RESOLVER_QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..RESOLVER_THREADS {
            let receiver = Arc::clone(&receiver);
            let answers = self.answers.0.clone();
            let mut wake = self.wake.try_clone()?;
            thread::Builder::new().name(String::from("resolver")).spawn(move || {
                loop {
                    let question = match receiver.lock() {
                        Ok(receiver) => receiver.recv(),
                        Err(_) => return,
                    };
                    let Ok(question) = question else { return };
                    // The worker may be gone; then nobody waits.
                    if answers.send(find(question)).is_err() {
                        return;
                    }
                    let _ = wake.write_all(b"r");
                }
            })?;
        }
        Ok(sender)
    }
}

/// The address, where the target names one itself.
pub(crate) fn literal(target: &Target) -> Option<SocketAddr> {
    let ip: IpAddr = target.host.parse().ok()?;
    Some(SocketAddr::new(ip, target.port))
}

fn send<Q>(questions: &Option<SyncSender<Q>>, question: Q) -> io::Result<()> {
    let Some(questions) = questions else { return Ok(()) };
    questions.try_send(question).map_err(|error| {
        io::Error::other(match error {
            TrySendError::Full(_) => "too many names are being looked up",
            TrySendError::Disconnected(_) => "the threads that look names up have ended",
        })
    })
}

/// The name that belongs to an address, if the address belongs to the name: whoever owns an address
/// may give it any name.
fn client_name(client: IpAddr) -> Option<String> {
    let (name, _) = getnameinfo(&SocketAddr::new(client, 0), libc::NI_NAMEREQD).ok()?;
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut addresses = (name.as_str(), 0).to_socket_addrs().ok()?;
    addresses.any(|address| address.ip().to_canonical() == client).then_some(name)
}

/// All addresses of a name, families in turn so that a dead one does not use up the time, at most
/// as many as are tried.
pub(crate) fn look_up(target: &Target) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (target.host.as_str(), target.port).to_socket_addrs()?.collect();
    let (v6, v4): (Vec<_>, Vec<_>) = found.iter().copied().partition(SocketAddr::is_ipv6);
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second) = if first_is_v6 {
        (v6.into_iter(), v4.into_iter())
    } else {
        (v4.into_iter(), v6.into_iter())
    };
    let mut out = Vec::new();
    while out.len() < ADDRESSES_MAX {
        let before = out.len();
        out.extend(first.next());
        out.extend(second.next());
        if out.len() == before {
            break;
        }
    }
    if out.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_name_is_answered_and_the_loop_is_woken() {
        let (mut wait, wake) = UnixStream::pair().unwrap();
        let mut resolver = Resolver::<u64>::new(wake);
        let target = Target { host: String::from("localhost"), port: 80 };
        assert_eq!(literal(&target), None);
        resolver.ask(7, &target).unwrap();
        wait.read_exact(&mut [0]).unwrap();
        let Some(Answer::Addresses { token: 7, addresses }) = resolver.answer() else { panic!() };
        assert!(addresses.unwrap().iter().all(|a| a.ip().is_loopback() && a.port() == 80));
    }

    #[test]
    fn a_client_has_the_name_that_leads_back_to_it() {
        let (mut wait, wake) = UnixStream::pair().unwrap();
        let mut resolver = Resolver::<u64>::new(wake);
        // No address of a host: neither has a name.
        for client in ["127.0.0.1", "0.0.0.1", "ff02::ffff"] {
            let client: IpAddr = client.parse().unwrap();
            resolver.ask_name(client).unwrap();
            wait.read_exact(&mut [0]).unwrap();
            let Some(Answer::Client { client: of, name }) = resolver.answer() else { panic!() };
            assert_eq!((of, name.is_some()), (client, client.is_loopback()), "{name:?}");
        }
    }

    #[test]
    fn literal_addresses_need_no_thread() {
        let target = |host: &str| Target { host: String::from(host), port: 5 };
        assert_eq!(literal(&target("::1")), Some("[::1]:5".parse().unwrap()));
        assert_eq!(literal(&target("10.1.2.3")), Some("10.1.2.3:5".parse().unwrap()));
    }
}
