//! The fence around the process, from inside: what a plan needs goes on, files that it does not need
//! cannot be opened, and a forbidden call ends the process.
//!
//! Nothing from outside makes the program do what is forbidden, so this is a program of its own: it
//! starts itself again, puts up the fence as the real one does, and does one thing.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getuid, setuid};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, dumpable_behavior, getppid, setrlimit,
    test_kill_process,
};
use sockmux_uring::cli::fence::Fence;
use sockmux_uring::cli::files::Disk;
use sockmux_uring::cli::invocation::{self, LogFormat};
use sockmux_uring::cli::plan::Plan;
use sockmux_uring::io::sandbox::{self, Errand};
use sockmux_uring::observe::Log;

/// Which deed this process is to do.
const DEED: &str = "SOCKMUX_TEST_DEED";
/// A directory for it.
const PLACE: &str = "SOCKMUX_TEST_PLACE";

/// A plan that needs no file.
const BARE: [&str; 2] = ["-P127.0.0.1:0", "DEST=127.0.0.1:9"];
/// A plan that needs the system's resolver.
const NAMES: [&str; 2] = ["-P127.0.0.1:0", "DEST=localhost:9"];

/// Something that a process does behind its fence.
type Deed = (&'static str, fn());

/// What ends the process.
const FORBIDDEN: [Deed; 13] = [
    ("a program", || behind(&NAMES, || try_to(|| Command::new("/bin/true").spawn()))),
    ("a program, by a thread that was there", || {
        behind_by_another(&NAMES, || try_to(|| Command::new("/bin/true").spawn()));
    }),
    ("a file written", || behind(&NAMES, || try_to(|| fs::write(place().join("new"), "text")))),
    ("a file removed", || behind(&NAMES, || try_to(|| fs::remove_file(place().join("file"))))),
    ("a directory", || behind(&NAMES, || try_to(|| fs::create_dir(place().join("new"))))),
    ("a signal", || behind(&NAMES, || try_to(|| getppid().map(test_kill_process)))),
    ("a ring", || behind(&NAMES, || try_to(|| io_uring::IoUring::new(8)))),
    ("a packet socket", || {
        behind(&NAMES, || try_to(|| socket(AddressFamily::PACKET, SocketType::DGRAM, None)));
    }),
    ("a raw socket", || {
        behind(&NAMES, || try_to(|| socket(AddressFamily::INET, SocketType::RAW, None)));
    }),
    ("a namespace", || behind(&NAMES, || try_to(|| unshare(CloneFlags::CLONE_NEWUSER)))),
    ("another user", || behind(&NAMES, || try_to(|| setuid(getuid())))),
    ("a limit", || {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        behind(&NAMES, || try_to(|| setrlimit(Resource::Core, none)));
    }),
    ("administration, by a relay with commands", || {
        let words = ["-P127.0.0.1:0", "SERVER=exec:cat,-in", "--sandbox", "on"];
        let own = fs::File::open("/proc/self/ns/uts").expect("a namespace");
        behind(&words, || try_to(|| setns(own, CloneFlags::CLONE_NEWUTS)));
    }),
];

/// What goes on; each of them panics if it does not.
const ALLOWED: [Deed; 8] = [
    ("no core dumps", || {
        // A plan with commands: behind another fence this cannot be asked.
        behind(&["-P127.0.0.1:0", "SERVER=exec:cat,-in"], || {
            let behavior = dumpable_behavior().expect("an answer");
            assert_eq!(behavior, DumpableBehavior::NotDumpable);
        });
    }),
    ("names", || behind(&NAMES, names_are_found)),
    ("sockets and threads", || behind(&BARE, sockets_and_threads_work)),
    ("no files", || behind(&BARE, || is_denied(fs::read("/etc/hosts")))),
    ("no other files", || behind(&NAMES, || is_denied(fs::read(place().join("file"))))),
    ("no other files, by a thread that was there", || {
        behind_by_another(&NAMES, || is_denied(fs::read(place().join("file"))));
    }),
    ("FIFOs made again", fifos_are_opened_again),
    ("Unix sockets removed", || {
        let path = place().join("socket");
        let entrance = format!("PORT=unix:{}", path.display());
        let listener = UnixListener::bind(&path).expect("a socket");
        behind(&["-P127.0.0.1:0", &entrance], || {
            fs::File::open(place()).expect("its directory");
            fs::remove_file(place().join("socket")).expect("removed");
            is_denied(fs::read(place().join("file")));
        });
        drop(listener);
    }),
];

fn main() {
    let Ok(deed) = std::env::var(DEED) else {
        every_forbidden_call_ends_the_process();
        what_a_plan_needs_goes_on();
        a_panic_has_its_backtrace_behind_the_fence();
        return;
    };
    if deed == PANIC {
        panics();
    }
    let deeds = FORBIDDEN.iter().chain(&ALLOWED);
    let (_, deed) = deeds.into_iter().find(|(name, _)| *name == deed).expect("a deed");
    deed();
}

fn every_forbidden_call_ends_the_process() {
    for (name, _) in FORBIDDEN {
        let (status, text) = done(name, &[]);
        assert_eq!(status.signal(), Some(Signal::SYS.as_raw()), "{name}: {status}: {text}");
    }
}

fn what_a_plan_needs_goes_on() {
    for (name, _) in ALLOWED {
        let (status, text) = done(name, &[]);
        assert!(status.success(), "{name}: {status}: {text}");
    }
}

/// The deed that is a panic behind the log.
const PANIC: &str = "a panic";

fn panics() {
    let log = Log::start(0, LogFormat::Text).expect("a thread");
    put_up(&BARE, |errand| log.run(errand));
    panic!("behind the fence");
}

fn a_panic_has_its_backtrace_behind_the_fence() {
    let (status, text) = done(PANIC, &[("RUST_BACKTRACE", "1")]);
    assert_eq!(status.code(), Some(101), "{text}");
    assert!(
        text.contains("behind the fence") && text.contains("program_sandbox::panics"),
        "{text}"
    );
}

/// How a process ends that does this, and what it says.
fn done(deed: &str, environment: &[(&str, &str)]) -> (ExitStatus, String) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("file"), "text").expect("a file");
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.env(DEED, deed).env(PLACE, directory.path()).env_remove("RUST_BACKTRACE");
    program.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    let output = program.stderr(Stdio::piped()).output().expect("it starts");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn place() -> PathBuf {
    std::env::var_os(PLACE).expect("a directory").into()
}

fn plan(words: &[&str]) -> Plan {
    let mut look_up = |_: &str| -> io::Result<Vec<IpAddr>> { Ok(Vec::new()) };
    let words = ["sockmux-uring"].iter().chain(words).map(OsString::from);
    match invocation::parse(words, &Disk, &mut look_up).expect("a command line").command {
        invocation::Command::Run(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn put_up(words: &[&str], on_other_threads: impl Fn(Errand)) {
    let lacking = sandbox::put_up(&Fence::of(&plan(words)), on_other_threads);
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// Does what ends the process, whatever comes of it.
fn try_to<T>(deed: impl FnOnce() -> T) {
    let _ = deed();
}

/// Does this behind the fence of a plan.
fn behind(words: &[&str], deed: impl FnOnce()) {
    put_up(words, |_| {});
    deed();
}

/// The same, by a thread that runs before the fence is there.
fn behind_by_another(words: &[&str], deed: impl FnOnce() + Send + 'static) {
    let (errands, theirs): (Sender<Errand>, Receiver<Errand>) = channel();
    let other = thread::spawn(move || theirs.iter().for_each(|errand| errand()));
    put_up(words, |errand| errands.send(errand).expect("it runs"));
    errands.send(Box::new(deed)).expect("it runs");
    drop(errands);
    other.join().expect("done");
}

#[track_caller]
fn is_denied<T>(opened: io::Result<T>) {
    let error = opened.err().expect("it is opened");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

fn names_are_found() {
    assert!(("localhost", 9).to_socket_addrs().expect("a name").count() > 0);
    // As the system's resolver finds them again after they were written anew.
    fs::read("/etc/hosts").expect("a file of the resolver");
    nix::ifaddrs::getifaddrs().expect("interfaces");
}

fn sockets_and_threads_work() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = thread::Builder::new().name("client".to_owned()).spawn(move || {
        let mut client = TcpStream::connect(address).expect("connected");
        client.set_nodelay(true).expect("an option");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
        client.write_all(b"sent").expect("sent");
    });
    let mut text = String::new();
    listener.accept().expect("a client").0.read_to_string(&mut text).expect("text");
    client.expect("a thread").join().expect("done");
    assert_eq!(text, "sent");
    UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).expect("a port");
    nix::ifaddrs::getifaddrs().expect("interfaces");
}

fn fifos_are_opened_again() {
    let made = |name: &str| {
        let path = place().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        path
    };
    let words = [("commin", made("input")), ("commout", made("output"))]
        .map(|(word, path)| format!("SERVER=sockmux:{word}@{}", path.display()));
    // What stands there later is another file.
    let again = made("again");
    put_up(&[&words[0], &words[1], "PORT=127.0.0.1:0"], |_| {});
    for path in [again, place().join("output")] {
        fs::File::options().read(true).write(true).open(path).expect("opened");
    }
    is_denied(fs::read("/etc/hosts"));
}
