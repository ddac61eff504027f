//! Real services on loopback, each with a directory of its own, ended and removed on drop.
//! A test skips ([`skip`](super::skip)) or fails when a program is not installed, and names
//! its Debian package.

pub mod dnsmasq;
pub mod iperf3;
pub mod nginx;
pub mod postgres;
pub mod redis;
pub mod sshd;
pub mod vsftpd;
pub mod wireguard;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::testkit::log::Log;
use crate::testkit::{DEADLINE, eventually, net};

/// Where services listen. No outgoing connection starts from this address, so a port that was
/// free a moment ago is not taken by one.
const SERVICES_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// How long one client command may take: far more than any of them needs.
const CLIENT_DEADLINE: Duration = Duration::from_secs(150);

/// A server process in a process group of its own, and its directory.
pub struct Service {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    log: Arc<Log>,
    dir: TempDir,
}

impl Service {
    /// Starts `command`, which must stay in the foreground, and waits until `address` accepts.
    fn start(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        dir: TempDir,
    ) -> Service {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let log = Log::follow(child.stderr.take().expect("a pipe"));
        let mut service = Service { name, address, child, log, dir };
        let up = eventually(DEADLINE, || {
            let exited = service.child.try_wait().expect("the child can be waited for");
            assert!(exited.is_none(), "{name} ended by itself:\n{}", service.log.text());
            TcpStream::connect(address).is_ok()
        });
        assert!(up, "{name} does not accept on {address}:\n{}", service.log.text());
        service
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its directory, for files of the test too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.name, self.log.text());
        }
        // Failing here is no news: the group has just ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A port for a service.
fn free_address() -> SocketAddr {
    net::free_port(SERVICES_IP)
}

/// A new directory for a service or a client.
pub fn new_dir() -> TempDir {
    tempfile::Builder::new().prefix("sockmux-uring-").tempdir().expect("a temporary directory")
}

/// Makes `cert.pem` and `key.pem` in this directory: for `localhost`, and self-signed.
fn new_certificate(dir: &Path) {
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
    openssl.arg("-keyout").arg(dir.join("key.pem"));
    run(openssl.arg("-out").arg(dir.join("cert.pem")));
}

/// The programs that tests start, each with its Debian package.
const PACKAGES: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("diff", "diffutils"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("initdb", "postgresql"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("lftp", "lftp"),
    ("logger", "bsdutils"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("perl", "perl-base"),
    ("pg_isready", "postgresql"),
    ("pgbench", "postgresql-contrib"),
    ("ping", "iputils-ping"),
    ("postgres", "postgresql"),
    ("psql", "postgresql"),
    ("redis-benchmark", "redis-tools"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("scp", "openssh-client"),
    ("sha256sum", "coreutils"),
    ("socat", "socat"),
    ("ss", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("telnet", "inetutils-telnet"),
    ("tshark", "tshark"),
    ("vsftpd", "vsftpd"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("wrk", "wrk"),
];

/// Finds one of [`PACKAGES`].
///
/// # Panics
/// If it is not installed.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{}", missing(name)))
}

/// Where the program is, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    // Debian keeps servers out of a user's PATH.
    places.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    places.extend(postgres_places());
    places.into_iter().map(|place| place.join(name)).find(|path| path.is_file())
}

/// That a program is not installed, and how to install it.
pub fn missing(name: &str) -> String {
    let package = PACKAGES.iter().find(|(program, _)| *program == name);
    let (_, package) = package.unwrap_or_else(|| panic!("{name} is missing in PACKAGES"));
    format!("{name} is missing: apt-get install {package}")
}

/// `/usr/lib/postgresql/VERSION/bin`, the newest version first.
fn postgres_places() -> Vec<PathBuf> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path.join("bin")).collect()
}

/// Runs a client to its end within [`CLIENT_DEADLINE`], and returns its standard output; panics with all
/// its output if it fails.
pub fn run(command: &mut Command) -> String {
    let output = output_of(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Runs a client to its end within [`CLIENT_DEADLINE`]; panics when it takes longer.
pub fn output_of(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let group = Pid::from_child(&child);
    let (done, finished) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("the client can be waited for");
        // There is no receiver any more when the deadline has passed.
        let _ = done.send(());
        output
    });
    let in_time = finished.recv_timeout(CLIENT_DEADLINE).is_ok();
    if !in_time {
        kill_process_group(group, Signal::KILL).expect("the client can be killed");
    }
    let output = waiter.join().expect("waiting does not panic");
    assert!(
        in_time,
        "{command:?} hangs; so far:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Number of listening ports of the process (`-t` for TCP, `-u` for UDP), as the kernel reports it.
pub fn open_ports(of: u32, kind: &str) -> usize {
    let mut ss = Command::new(program("ss"));
    let said = run(ss.args(["--no-header", "--listening", "--numeric", "--processes", kind]));
    let owner = format!("pid={of},");
    said.lines().filter(|line| line.contains(&owner)).count()
}

/// The SHA-256 of a file, by the program that a user would take.
pub fn sha256(path: &Path) -> String {
    let said = run(Command::new(program("sha256sum")).arg(path));
    said.split_whitespace().next().expect("a checksum").to_owned()
}

/// Writes `bytes` bytes of the pattern of `seed` to `path`.
pub fn pattern_file(path: &Path, seed: u64, bytes: u64) {
    let mut file = std::fs::File::create(path).expect("a new file");
    crate::testkit::pattern::Pattern::new(seed).send(&mut file, bytes).expect("written");
}
