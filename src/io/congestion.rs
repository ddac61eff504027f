#![allow(unsafe_code)]
//! Which congestion control our own sockets use.
//!
//! Where the system's choice is one that paces (bbr), it costs more on a short path than all I/O
//! calls together, and gains nothing there: on loopback a tunnel moved 1.2 to 1.4 times as much
//! with cubic on its own sockets, at three quarters of the CPU (`docs/performance.md`). So sockets on short paths use a plain
//! algorithm, those on long ones the system's choice. Listening sockets are set once, and what is
//! accepted from them inherits it.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use std::{fs, io};

use socket2::{Domain, SockRef, Socket, Type};

use super::net::peer_address;
use crate::cli::plan::Congestion;
use crate::limits::SHORT_PATH_MICROS;
use crate::narrow::to_u32;

/// What short paths may use, the best first. Reno is there for processes that may not choose
/// cubic (`net.ipv4.tcp_allowed_congestion_control`).
const PLAIN: [&str; 2] = ["cubic", "reno"];
const SYSTEM: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The choice for a process.
#[derive(Debug, Clone)]
pub(crate) enum CongestionPolicy {
    /// Sockets are left as the system makes them.
    Leave,
    /// One algorithm on every socket.
    Always(String),
    /// One on short paths, the system's on long ones.
    ByPath { short: &'static str, long: String },
}

impl CongestionPolicy {
    /// Finds out what can be had, by asking for it.
    ///
    /// # Errors
    /// When an algorithm was asked for by name and the kernel refuses it.
    pub(crate) fn new(wanted: &Congestion) -> io::Result<CongestionPolicy> {
        let scratch = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        match wanted {
            Congestion::System => Ok(CongestionPolicy::Leave),
            Congestion::Named(name) => {
                scratch.set_tcp_congestion(name.as_bytes())?;
                Ok(CongestionPolicy::Always(name.clone()))
            }
            Congestion::Auto => {
                let system = fs::read_to_string(SYSTEM).unwrap_or_default().trim().to_owned();
                if system.is_empty() || PLAIN.contains(&system.as_str()) {
                    return Ok(CongestionPolicy::Leave);
                }
                let plain = PLAIN
                    .into_iter()
                    .find(|plain| scratch.set_tcp_congestion(plain.as_bytes()).is_ok());
                Ok(plain.map_or(CongestionPolicy::Leave, |short| CongestionPolicy::ByPath {
                    short,
                    long: system,
                }))
            }
        }
    }

    /// For a socket that is about to listen or to connect.
    pub(crate) fn set_before(&self, fd: &OwnedFd) {
        match self {
            CongestionPolicy::Leave => {}
            CongestionPolicy::Always(name) => set(fd, name),
            CongestionPolicy::ByPath { short, .. } => set(fd, short),
        }
    }

    /// For a socket that is connected: now its path is known.
    pub(crate) fn set_after(&self, fd: &OwnedFd) {
        if let CongestionPolicy::ByPath { long, .. } = self
            && !is_short(fd)
        {
            set(fd, long);
        }
    }

    /// For the log: what short paths use.
    pub(crate) fn name(&self) -> &str {
        match self {
            CongestionPolicy::Leave => "system",
            CongestionPolicy::Always(name) => name,
            CongestionPolicy::ByPath { short, .. } => short,
        }
    }
}

/// It was tried when the choice was made; a socket that refuses it now keeps what it has.
fn set(fd: &OwnedFd, name: &str) {
    let _ = SockRef::from(fd).set_tcp_congestion(name.as_bytes());
}

fn is_short(fd: &OwnedFd) -> bool {
    match peer_address(fd).ip() {
        IpAddr::V4(v4) if v4.is_loopback() => true,
        IpAddr::V6(v6) if v6.is_loopback() => true,
        _ => round_trip(fd).is_some_and(|time| time.as_micros() <= u128::from(SHORT_PATH_MICROS)),
    }
}

/// The round trip that the kernel has measured, by the handshake if by nothing else.
fn round_trip(fd: &OwnedFd) -> Option<Duration> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = to_u32(size_of::<libc::tcp_info>());
    // SAFETY: the kernel writes at most `len` bytes into the structure, which is ours, before the
    // call returns. It is numbers only, for which zero is valid.
    let (got, info) = unsafe {
        let (start, fd) = (info.as_mut_ptr().cast(), fd.as_raw_fd());
        let got = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, start, &mut len);
        (got, info.assume_init())
    };
    (got == 0).then(|| Duration::from_micros(u64::from(info.tcpi_rtt)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn congestion(fd: &OwnedFd) -> String {
        let name = SockRef::from(fd).tcp_congestion().unwrap();
        String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned()
    }

    #[test]
    fn loopback_is_a_short_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client: OwnedFd = TcpStream::connect(listener.local_addr().unwrap()).unwrap().into();
        assert!(is_short(&client));
        assert!(round_trip(&client).unwrap() < Duration::from_secs(1));
    }

    #[test]
    fn what_is_accepted_inherits_the_choice_and_long_paths_go_back() {
        // Reno may be chosen by anybody.
        let choice = CongestionPolicy::ByPath { short: "reno", long: String::from("reno") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        choice.set_before(&listener);
        let _client = TcpStream::connect(address).unwrap();
        let accepted = TcpListener::from(listener).accept().unwrap().0.into();
        assert_eq!(congestion(&accepted), "reno");
        choice.set_after(&accepted);
        assert_eq!(congestion(&accepted), "reno");
    }

    #[test]
    fn an_algorithm_that_is_none_is_an_error() {
        assert!(CongestionPolicy::new(&Congestion::Named(String::from("nonesuch"))).is_err());
        assert!(matches!(CongestionPolicy::new(&Congestion::System), Ok(CongestionPolicy::Leave)));
        assert!(CongestionPolicy::new(&Congestion::Auto).is_ok());
    }
}
