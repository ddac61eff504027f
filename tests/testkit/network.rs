//! A network of the test's own, with its own settings of the network stack.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Socket, Type};

use super::{DEADLINE, eventually};

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

/// Two networks beyond the calling thread's own: a router at its `10.77.1.0/24` and `2001:db8:1::/64`,
/// and behind it a host of `198.51.100.0/24` and `2001:db8:77::/64`. Neither is in a network of this side.
pub struct Beyond {
    here: File,
    router: Place,
    host: Place,
}

/// A network, kept by a process in it.
struct Place {
    keeper: Child,
    network: File,
}

impl Beyond {
    /// Addresses of the calling thread's side.
    pub const HERE: [&str; 2] = ["10.77.1.1", "2001:db8:1::1"];
    /// Addresses of the host behind the router.
    pub const HOST: [&str; 2] = ["198.51.100.7", "2001:db8:77::7"];
    /// The router's address in a network of the calling thread's side.
    pub const ROUTER: &str = "10.77.1.254";
    /// Link-local addresses of the calling thread's side, and of the router on the same link.
    const ON_LINK: [&str; 2] = ["fe80::77:1", "fe80::77:fe"];

    /// Lays the two out from the calling thread, which is in a network of its own.
    pub fn lay_out() -> Beyond {
        let here = File::open("/proc/thread-self/ns/net").expect("this thread has a network");
        let [router, host] = [(); 2].map(|()| Place::new());
        let beyond = Beyond { here, router, host };
        let [router, host] = [&beyond.router, &beyond.host].map(|place| place.keeper.id());
        ip(&format!("link add here0 type veth peer name here1 netns {router}"));
        address("here0", &[Beyond::HERE[0], Beyond::HERE[1], Beyond::ON_LINK[0]]);
        ip(&format!("route add default via {}", Beyond::ROUTER));
        ip("-6 route add default via 2001:db8:1::fe");
        beyond.at_router(|| {
            ip("link set lo up");
            ip(&format!("link add there0 type veth peer name there1 netns {host}"));
            address("here1", &[Beyond::ROUTER, "2001:db8:1::fe", Beyond::ON_LINK[1]]);
            address("there0", &["198.51.100.254", "2001:db8:77::fe"]);
            sysctl("net.ipv4.ip_forward", "1");
            sysctl("net.ipv6.conf.all.forwarding", "1");
        });
        beyond.at_host(|| {
            ip("link set lo up");
            address("there1", &Beyond::HOST);
            ip("route add default via 198.51.100.254");
            ip("-6 route add default via 2001:db8:77::fe");
        });
        beyond
    }

    /// Does something as the router: sockets are made, and programs started, there.
    pub fn at_router<T>(&self, what: impl FnOnce() -> T) -> T {
        self.inside(&self.router, what)
    }

    /// The same as the host behind it.
    pub fn at_host<T>(&self, what: impl FnOnce() -> T) -> T {
        self.inside(&self.host, what)
    }

    /// A port of the calling thread's side as the router reaches it without a global address.
    pub fn on_link(&self, port: u16) -> SocketAddr {
        let device = self.at_router(|| if_nametoindex("here1").expect("the router's device"));
        let ip = Beyond::ON_LINK[0].parse().expect("an address");
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, device))
    }

    fn inside<T>(&self, place: &Place, what: impl FnOnce() -> T) -> T {
        place.inside(&self.here, what)
    }
}

/// Spokes of a hub, which is in the calling thread's network: each in a network of its own, with a link to
/// the hub and nothing else.
pub struct Star {
    here: File,
    spokes: Vec<Place>,
}

impl Star {
    /// Lays out so many from the calling thread, which is in a network of its own.
    pub fn lay_out(spokes: usize) -> Star {
        let here = File::open("/proc/thread-self/ns/net").expect("this thread has a network");
        let star = Star { here, spokes: (0..spokes).map(|_| Place::new()).collect() };
        for (spoke, place) in star.spokes.iter().enumerate() {
            let keeper = place.keeper.id();
            ip(&format!("link add to{spoke} type veth peer name hub netns {keeper}"));
            address(&format!("to{spoke}"), &[&star.hub_of(spoke).to_string()]);
            star.at_spoke(spoke, || {
                ip("link set lo up");
                address("hub", &[&format!("10.78.{spoke}.2")]);
            });
        }
        star
    }

    /// The hub's address as a spoke reaches it.
    pub fn hub_of(&self, spoke: usize) -> IpAddr {
        format!("10.78.{spoke}.1").parse().expect("an address")
    }

    /// Does something as a spoke: sockets are made, and programs started, there.
    pub fn at_spoke<T>(&self, spoke: usize, what: impl FnOnce() -> T) -> T {
        self.spokes[spoke].inside(&self.here, what)
    }

    /// The same under another name of the host.
    pub fn at_spoke_called<T: Send>(
        &self,
        spoke: usize,
        name: &str,
        what: impl FnOnce() -> T + Send,
    ) -> T {
        // The name is the thread's, and that of processes which it starts.
        std::thread::scope(|scope| {
            let called = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWUTS).expect("root may have another name");
                rustix::system::sethostname(name.as_bytes()).expect("and take it");
                self.at_spoke(spoke, what)
            });
            called.join().expect("no panic")
        })
    }
}

impl Place {
    fn new() -> Place {
        let keeper = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn();
        let keeper = keeper.expect("unshare of util-linux starts");
        let path = format!("/proc/{}/ns/net", keeper.id());
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("this thread has one");
        let left = || std::fs::read_link(&path).is_ok_and(|its| its != own);
        assert!(eventually(DEADLINE, left), "no new network");
        let network = File::open(path).expect("it has begun");
        Place { keeper, network }
    }

    /// Does something there, and comes back.
    fn inside<T>(&self, here: &File, what: impl FnOnce() -> T) -> T {
        setns(&self.network, CloneFlags::CLONE_NEWNET).expect("root may go there");
        let done = what();
        setns(here, CloneFlags::CLONE_NEWNET).expect("root may come back");
        done
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Failing here is no news: it has just ended by itself.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Brings a device up with these addresses, which may be used at once.
fn address(device: &str, all: &[&str]) {
    ip(&format!("link set {device} up"));
    for address in all {
        let bits = if address.contains(':') { "64" } else { "24" };
        let at_once = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("addr add {address}/{bits} dev {device}{at_once}"));
    }
}
