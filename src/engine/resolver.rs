//! Names looked up beside the loop: a few threads that ask the system's resolver, so that a slow
//! name server delays only who waits for it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::{io, thread};

use crate::limits::{ADDRESSES_MAX, RESOLVER_QUEUE, RESOLVER_THREADS};
use crate::params::plan::Target;

/// An answer: who asked, and what was found.
pub(super) struct Answer {
    pub(super) token: u64,
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
}

struct Question {
    token: u64,
    target: Target,
}

/// Looks names up. Threads start with the first question and end with the resolver.
pub(super) struct Resolver {
    questions: Option<SyncSender<Question>>,
    answers: (Sender<Answer>, Receiver<Answer>),
    wake: UnixStream,
}

impl Resolver {
    /// `wake` gets a byte for every answer.
    pub(super) fn new(wake: UnixStream) -> Resolver {
        Resolver { questions: None, answers: channel(), wake }
    }

    /// The address, where the target names one itself.
    pub(super) fn literal(target: &Target) -> Option<SocketAddr> {
        let ip: IpAddr = target.host.parse().ok()?;
        Some(SocketAddr::new(ip, target.port))
    }

    /// Asks for a name. The answer comes with `token`.
    pub(super) fn ask(&mut self, token: u64, target: &Target) -> io::Result<()> {
        if self.questions.is_none() {
            self.questions = Some(self.start()?);
        }
        let Some(questions) = &self.questions else { return Ok(()) };
        questions.try_send(Question { token, target: target.clone() }).map_err(|error| {
            io::Error::other(match error {
                TrySendError::Full(_) => "too many names are being looked up",
                TrySendError::Disconnected(_) => "the threads that look names up have ended",
            })
        })
    }

    /// The answers that have come.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        self.answers.1.try_recv().ok()
    }

    fn start(&self) -> io::Result<SyncSender<Question>> {
        let (sender, receiver) = sync_channel::<Question>(RESOLVER_QUEUE);
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
                    let Ok(Question { token, target }) = question else { return };
                    let addresses = look_up(&target);
                    // The worker may be gone; then nobody waits.
                    if answers.send(Answer { token, addresses }).is_err() {
                        return;
                    }
                    let _ = wake.write_all(b"r");
                }
            })?;
        }
        Ok(sender)
    }
}

/// All addresses of a name, families in turn so that a dead one does not use up the time, at most
/// as many as are tried.
pub(super) fn look_up(target: &Target) -> io::Result<Vec<SocketAddr>> {
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
        let mut resolver = Resolver::new(wake);
        let target = Target { host: String::from("localhost"), port: 80 };
        assert_eq!(Resolver::literal(&target), None);
        resolver.ask(7, &target).unwrap();
        wait.read_exact(&mut [0]).unwrap();
        let answer = resolver.answer().unwrap();
        assert_eq!(answer.token, 7);
        assert!(answer.addresses.unwrap().iter().all(|a| a.ip().is_loopback() && a.port() == 80));
    }

    #[test]
    fn literal_addresses_need_no_thread() {
        let target = |host: &str| Target { host: String::from(host), port: 5 };
        assert_eq!(Resolver::literal(&target("::1")), Some("[::1]:5".parse().unwrap()));
        assert_eq!(Resolver::literal(&target("10.1.2.3")), Some("10.1.2.3:5".parse().unwrap()));
    }
}
