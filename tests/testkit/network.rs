//! A network of the test's own, with its own settings of the network stack.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

/// Puts the calling thread, and with it the threads and processes that it starts from now on, into
/// a new network namespace whose only device is a loopback with this MTU. It ends with the last of them.
///
/// # Panics
/// If the test does not run as root.
pub fn enter_new(loopback_mtu_bytes: u32) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| {
        panic!("a network namespace is needed, for which run this as root: {e}")
    });
    ip(&format!("link set lo mtu {loopback_mtu_bytes} up"));
}

/// Runs `ip` with these words, in the network of the calling thread.
pub fn ip(words: &str) {
    run("ip", &words.split(' ').collect::<Vec<_>>());
}

fn run(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status();
    let status = status.unwrap_or_else(|e| panic!("{program} is missing: {e}"));
    assert!(status.success(), "{program} {words:?}: {status}");
}

/// The content of `/etc/hosts` for the calling thread, and for threads and processes that it starts from
/// now on.
pub struct Hosts {
    file: tempfile::NamedTempFile,
}

impl Hosts {
    /// Puts the calling thread into a mount namespace of its own, where these addresses have these
    /// names.
    ///
    /// # Panics
    /// If the test does not run as root.
    pub fn enter(lines: &[(&str, &str)]) -> Hosts {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace is needed: run this as root");
        run("mount", &["--make-rprivate", "/"]);
        let hosts = Hosts { file: tempfile::NamedTempFile::new().expect("a temporary file") };
        hosts.set(lines);
        put_over("/etc/hosts", hosts.file.path());
        hosts
    }

    /// Other names are looked up at this address, port 53.
    pub fn ask(&self, name_server: IpAddr) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), format!("nameserver {name_server}\n")).expect("written");
        // The mount keeps the file when its name is removed.
        put_over("/etc/resolv.conf", file.path());
    }

    /// From now on the names are these.
    pub fn set(&self, lines: &[(&str, &str)]) {
        let text: String = lines.iter().map(|(ip, name)| format!("{ip} {name}\n")).collect();
        // In place, since the file itself is mounted. A read in between finds no name.
        std::fs::write(self.file.path(), text).expect("written");
    }
}

fn put_over(file: &str, by: &Path) {
    run("mount", &["--bind", by.to_str().expect("a plain path"), file]);
}

/// Sets a value below `/proc/sys`, for the network of the calling thread.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// An address that never answers: its accept queue is full, and further SYNs are dropped.
pub struct SilentAddress {
    _listener: Socket,
    _queued: TcpStream,
}

impl SilentAddress {
    /// Makes an address of this machine one, at a port that is free there.
    pub fn at(address: SocketAddr) -> SilentAddress {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None);
        let listener = listener.expect("a socket");
        listener.bind(&address.into()).unwrap_or_else(|e| panic!("{address}: {e}"));
        listener.listen(0).expect("it can listen");
        let queued = TcpStream::connect(address).expect("one has room in the queue");
        let second = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        let error = second.expect_err("the queue is full");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        SilentAddress { _listener: listener, _queued: queued }
    }
}

/// Connections of the calling thread's network that wait for an answer.
pub fn connecting() -> usize {
    const SYN_SENT: &str = "02";
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let state = |line: &str| line.split_whitespace().nth(3) == Some(SYN_SENT);
    tables
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("the kernel's table"))
        .map(|table| table.lines().filter(|line| state(line)).count())
        .sum()
}
