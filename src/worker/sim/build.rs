//! The two relays of a script: command lines, listeners, links.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::script::{ExitKind, LinkKind, Script};
use super::tls_keys;
use crate::cli::files::Disk;
use crate::cli::invocation::{self, Command};
use crate::cli::plan::LinkPlan;
use crate::io::congestion::CongestionPolicy;
use crate::io::driver::Fd;
use crate::io::link::Link;
use crate::io::pipe::Pipes;
use crate::io::sim::{Kernel, SimDriver, ask};
use crate::policy::ceilings::Ceilings;
use crate::session::Moment;
use crate::tls::settings::{Peer, Peers, Role, Settings};
use crate::worker::buffers::Buffers;
use crate::worker::{DatagramPort, LinkSource, Listener, Origin, Purpose, Worker};

pub(super) const LINK: &str = "127.0.0.1:9000";
pub(super) const ENTRANCE: &str = "127.0.0.1:1001";
pub(super) const SERVER: &str = "10.0.0.9:80";
pub(super) const DATAGRAM_ENTRANCE: &str = "127.0.0.1:1002";
pub(super) const DATAGRAM_SERVER: &str = "10.0.0.9:53";

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// With the kernel of this thread.
pub(super) fn kernel<T>(call: impl FnOnce(&mut Kernel) -> T) -> T {
    ask(call).expect("the simulation runs")
}

/// Two links of two pipes.
pub(super) fn pipes(link: fn(Fd, Fd, String) -> Link) -> [Option<Link>; 2] {
    let [there, back] = [0, 1].map(|end| {
        kernel(|kernel| {
            kernel.set_owner(end);
            kernel.pipe()
        })
        .expect("a pipe")
    });
    // Each end owns the side that it uses.
    kernel(|kernel| {
        use std::os::fd::AsRawFd;
        kernel.give_to(there.1.as_raw_fd(), 0);
        kernel.give_to(there.0.as_raw_fd(), 1);
        kernel.give_to(back.1.as_raw_fd(), 1);
        kernel.give_to(back.0.as_raw_fd(), 0);
    });
    let of = |input, output| Some(link(Rc::new(input), Rc::new(output), String::from("pipes")));
    [of(back.0, there.1), of(there.0, back.1)]
}

/// Two links of one serial line, which is checked.
pub(super) fn line(bytes_per_second: u32) -> [Option<Link>; 2] {
    let devices = kernel(|kernel| kernel.line(address(LINK))).expect("two devices");
    let line = (bytes_per_second, true);
    devices.map(|device| Some(Link::of_line(Rc::new(device), line, String::from("line"))))
}

fn words(script: &Script, end: usize) -> Vec<String> {
    let exit = match script.exit {
        ExitKind::Named => String::from("DEST=at-10-0-0-9:80"),
        ExitKind::NameNever => String::from("DEST=never:80"),
        _ => format!("DEST={SERVER}"),
    };
    let way = if end == script.entrance_at { format!("PORT={ENTRANCE}") } else { exit };
    let link = match (script.link, end) {
        (LinkKind::Pipes | LinkKind::Fifos | LinkKind::Line(_), _) => String::from("-Fsockmux"),
        (LinkKind::Tcp, 0) => format!("-P{LINK}"),
        (LinkKind::Tcp, _) => format!("SERVER=sockmux://{LINK}"),
    };
    let protocol = if script.is_v03 { ",protocol:0.3" } else { "" };
    let soxconf = format!("SOXCONF=bulk:{}{protocol}", script.bulk);
    // Clients come from any network.
    let reliable = String::from("RELIABLE=*");
    let resume = format!("TIMEOUT=resume:{}", script.resume_secs);
    let mut words = vec![String::from("sockmux-uring"), link, way, soxconf, reliable, resume];
    if script.datagrams.is_some() {
        words.push(match end == script.entrance_at {
            true => format!("PORT={DATAGRAM_ENTRANCE}/udp"),
            false => format!("DEST={DATAGRAM_SERVER}/udp"),
        });
        words.push(String::from("TIMEOUT=udp:1"));
    }
    words
}

/// Lets in whoever a verifier has.
struct Anybody;

impl Peers for Anybody {
    fn has_file(&self) -> bool {
        false
    }

    fn look(&self) {}

    fn look_is_late(&self) {}

    fn identify(&self, _: &[CertificateDer<'_>]) -> Result<Peer, String> {
        let (fingerprint, options) = (String::from("SHA256:of-both"), Arc::default());
        Ok(Peer { fingerprint, name: None, options })
    }
}

/// What an end's link is encrypted with: the first one waits for the handshake.
pub(in crate::worker) fn encryption(end: usize, records_per_key: u64) -> Settings {
    let suite = tls_keys::SUITES[0];
    let role = match end {
        0 => Role::Server { config: Arc::new(tls_keys::server_config(suite)) },
        _ => Role::Client {
            config: Arc::new(tls_keys::client_config(suite)),
            name: tls_keys::name(),
        },
    };
    let own = String::from("SHA256:of-both");
    Settings::new(role, own, Arc::new(Anybody)).with_records_per_key(records_per_key)
}

/// An end that has begun.
pub(super) fn start(
    script: &Script,
    end: usize,
    owner: usize,
    link: Option<Link>,
) -> Worker<SimDriver> {
    kernel(|kernel| kernel.set_owner(owner));
    let words = words(script, end).into_iter().map(OsString::from);
    let mut no_names = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
    let invocation = invocation::parse(words, &Disk, &mut no_names).expect("a command line");
    let Command::Run(plan) = invocation.command else { unreachable!("it is to run") };
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    let mut listen = |at: &str, purpose| {
        let fd = kernel(|kernel| kernel.listen(address(at))).expect("a descriptor");
        listeners.push(Listener::new(fd, purpose, Origin::Own));
    };
    if let LinkPlan::Listen(_) = plan.link {
        listen(LINK, Purpose::Receptor);
    }
    if !plan.entrances.is_empty() {
        listen(ENTRANCE, Purpose::Entrance);
        if script.datagrams.is_some() {
            let fd = kernel(|kernel| kernel.datagram_socket(address(DATAGRAM_ENTRANCE), None));
            ports.push(DatagramPort::new(fd.expect("a descriptor"), Purpose::Entrance));
        }
    }
    let source = match (&plan.link, link) {
        (LinkPlan::Connect(target), _) => Some(LinkSource::Dial(target.clone())),
        (_, Some(link)) => Some(LinkSource::Given(Some(link))),
        _ => None,
    };
    let driver = SimDriver::new(owner, script.conditions.buffers);
    let encryption = script.records_per_key.map(|records| Rc::new(encryption(end, records)));
    // What would wake it is the simulated kernel's business.
    let (wake, resolver_wake) = UnixStream::pair().expect("a pair of sockets");
    let ways_in = (listeners, ports);
    let wakes = (wake, resolver_wake);
    let mut worker = Worker::new(
        (driver, Pipes::new()),
        (plan, Ceilings::within(None)),
        ways_in,
        source,
        CongestionPolicy::Leave,
        encryption,
        wakes,
    )
    .expect("memory");
    if script.conditions.pool_buffers > 0 {
        let pipes = std::mem::take(&mut worker.cx.buffers.pipes);
        worker.cx.buffers = Buffers::new(script.conditions.pool_buffers.into()).expect("memory");
        worker.cx.buffers.pipes = pipes;
    }
    if script.conditions.turn_frames > 0 {
        worker.cx.turn_work = script.conditions.turn_frames.into();
    }
    worker.cx.now = Moment(0);
    worker.begin();
    worker
}
