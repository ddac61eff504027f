//! A serial device is set as configured, locked, and restored; and the line of the other tests has the
//! faults that it is given.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fionread, read, write};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use sockmux_uring::cli::plan::{FlowControl, LineOptions, Parity};
use sockmux_uring::io::serial::{FileKind, OpenError, SerialPort};

use crate::testkit::pattern::Pattern;
use crate::testkit::serial_line::{Counts, End, Faults, SerialLine};
use crate::testkit::{DEADLINE, eventually};

/// A line without faults, as fast as it goes.
fn clean_line() -> SerialLine {
    SerialLine::start(Faults::default(), None)
}

/// The device as some other program opens it.
fn open_plainly(path: &Path) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).expect("the device can be opened")
}

fn open_port(line: &SerialLine, end: End) -> SerialPort {
    SerialPort::open(&line.path(end), &LineOptions::default()).expect("the device can be opened")
}

fn refusal(path: &Path, options: &LineOptions) -> OpenError {
    SerialPort::open(path, options).expect_err("the device is refused")
}

/// Writes everything, as fast as it is taken; panics when it takes too long.
fn write_all(fd: impl AsFd, mut bytes: &[u8]) {
    let end = Instant::now() + DEADLINE;
    while !bytes.is_empty() {
        assert!(Instant::now() < end, "{} bytes are not taken", bytes.len());
        match write(&fd, bytes) {
            Ok(wrote) => bytes = &bytes[wrote..],
            Err(Errno::AGAIN) => wait_for(&fd, PollFlags::OUT, Duration::from_millis(100)),
            Err(error) => panic!("writing to a device: {error}"),
        }
    }
}

/// Waits until there is something, or `longest` has passed.
fn wait_for(fd: impl AsFd, what: PollFlags, longest: Duration) {
    let longest = Timespec::try_from(longest).expect("a short time");
    let fd = fd.as_fd();
    poll(&mut [PollFd::new(&fd, what)], Some(&longest)).expect("a device can be polled");
}

/// Reads until `done` is true of all bytes so far; panics when it takes too long.
fn read_until(fd: impl AsFd, done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + DEADLINE;
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !done(&got) {
        assert!(Instant::now() < end, "only {} bytes came", got.len());
        match read(&fd, &mut buffer) {
            Ok(0) => panic!("end of data after {} bytes", got.len()),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => wait_for(&fd, PollFlags::IN, Duration::from_millis(100)),
            Err(error) => panic!("reading from a device: {error}"),
        }
    }
    got
}

fn pattern(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Pattern::new(5).send(&mut bytes, count as u64).expect("memory takes everything");
    bytes
}

/// Everything of the settings that a program can have changed.
fn said(settings: &Termios) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        settings.input_modes,
        settings.output_modes,
        settings.control_modes,
        settings.local_modes,
        settings.input_speed(),
        settings.output_speed(),
        settings.special_codes[SpecialCodeIndex::VMIN],
        settings.special_codes[SpecialCodeIndex::VTIME],
    )
}

#[test]
fn a_device_is_set_as_asked_and_given_back() {
    let line = clean_line();
    let other = open_plainly(&line.path(End::Left));
    let mut cooked = tcgetattr(&other).expect("settings");
    cooked.local_modes |= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    cooked.input_modes |= InputModes::ICRNL | InputModes::IXON | InputModes::IXANY;
    cooked.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
    cooked.special_codes[SpecialCodeIndex::VMIN] = 0;
    cooked.special_codes[SpecialCodeIndex::VTIME] = 7;
    cooked.set_speed(9600).expect("a rate");
    tcsetattr(&other, OptionalActions::Now, &cooked).expect("settings are taken");
    let before = tcgetattr(&other).expect("settings");

    for (flow, wires, characters) in [
        (FlowControl::None, false, false),
        (FlowControl::RtsCts, true, false),
        (FlowControl::XonXoff, false, true),
    ] {
        // No rate of the usual ones.
        let options = LineOptions { baud: 250_000, flow, stop_bits: 2, ..LineOptions::default() };
        let port = SerialPort::open(&line.path(End::Left), &options).expect("a port");
        let set = tcgetattr(&other).expect("settings");
        assert_eq!((set.input_speed(), set.output_speed()), (250_000, 250_000));
        assert_eq!(port.bytes_per_second(), 250_000 / 11);
        let control = set.control_modes;
        assert!(
            control.contains(ControlModes::CSTOPB | ControlModes::CLOCAL | ControlModes::CREAD)
        );
        assert_eq!(control & ControlModes::CSIZE, ControlModes::CS8);
        assert_eq!(control.contains(ControlModes::CRTSCTS), wires, "{flow:?}");
        assert_eq!(set.input_modes.contains(InputModes::IXON | InputModes::IXOFF), characters);
        let rest = set.input_modes - InputModes::IXON - InputModes::IXOFF;
        assert!(!rest.intersects(InputModes::ICRNL | InputModes::IXANY | InputModes::ISTRIP));
        assert!(!set.output_modes.contains(OutputModes::OPOST));
        let local = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        assert!(!set.local_modes.intersects(local));
        assert_eq!(set.special_codes[SpecialCodeIndex::VMIN], 1);
        drop(port);
        let after = tcgetattr(&other).expect("settings");
        assert_eq!(said(&after), said(&before), "{flow:?}");
    }
}

#[test]
fn a_device_is_for_one_program_at_a_time() {
    let line = clean_line();
    let path = line.path(End::Left);
    let port = open_port(&line, End::Left);
    // As an operation in flight does.
    let held = port.fd().clone();
    let error = refusal(&path, &LineOptions::default());
    assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("comm@{}: another program has", path.display())));
    assert!(message.contains("fuser"), "{message}");
    drop(port);
    open_port(&line, End::Left);
    drop(held);
}

#[test]
fn what_is_no_serial_device_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RWXU).expect("a FIFO");
    fs::write(at("file"), "text").expect("a file");
    let _listener = UnixListener::bind(at("socket")).expect("a socket");
    let cases = [
        (at("fifo"), FileKind::Fifo, "a FIFO, no serial device; give two of them"),
        (at("file"), FileKind::Regular, "a regular file, no serial device; name a device"),
        (at("socket"), FileKind::Socket, "a socket, no serial device; use proc@"),
        (at(""), FileKind::Directory, "a directory, no serial device; name a device"),
        ("/dev/null".into(), FileKind::CharacterDevice, "a device that is no terminal"),
    ];
    for (path, expected, words) in cases {
        let error = refusal(&path, &LineOptions::default());
        let message = error.to_string();
        assert!(message.contains(words) && message.starts_with("comm@/"), "{message}");
        assert!(matches!(error, OpenError::NotSerial { kind, .. } if kind == expected));
    }
    for path in [at("none"), at("file").join("none")] {
        let error = refusal(&path, &LineOptions::default());
        assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains("plug it in or correct the name"), "{error}");
    }
}

#[test]
fn a_device_of_somebody_else_is_named_with_a_remedy() {
    let line = clean_line();
    let path = line.path(End::Left);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("our device");
    // On a thread of its own, whose end restores the superuser's rights.
    let error = std::thread::spawn(move || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).expect("rights can be given up");
        refusal(&path, &LineOptions::default())
    });
    let error = error.join().expect("the device is refused");
    assert!(matches!(error, OpenError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("dialout"), "{error}");
}

#[test]
fn a_setting_that_the_device_has_not_is_refused() {
    let line = clean_line();
    let other = open_plainly(&line.path(End::Left));
    let before = tcgetattr(&other).expect("settings");
    // A pseudo terminal has no parity.
    let options = LineOptions { parity: Parity::Even, ..LineOptions::default() };
    let error = refusal(&line.path(End::Left), &options);
    assert!(error.to_string().contains("refuses parity=even; leave it out"), "{error}");
    let after = tcgetattr(&other).expect("settings");
    assert_eq!(said(&after), said(&before));
    open_port(&line, End::Left);
}

#[test]
fn what_came_before_the_opening_is_thrown_away() {
    let line = clean_line();
    let early = open_plainly(&line.path(End::Left));
    let right = open_port(&line, End::Right);
    write_all(right.fd(), b"old");
    assert!(eventually(DEADLINE, || ioctl_fionread(&early).is_ok_and(|bytes| bytes == 3)));
    let left = open_port(&line, End::Left);
    write_all(right.fd(), b"new");
    assert_eq!(read_until(left.fd(), |got| got.len() >= 3), b"new");
}

#[test]
fn what_was_written_before_the_drop_arrives() {
    let line = SerialLine::start(Faults::default(), Some(115_200));
    let left = open_plainly(&line.path(End::Left));
    let bytes = pattern(2000);
    let right = open_port(&line, End::Right);
    write_all(right.fd(), &bytes);
    drop(right);
    assert_eq!(read_until(&left, |got| got.len() >= bytes.len()), bytes);
}

#[test]
fn an_unplugged_device_is_found_again() {
    let line = clean_line();
    let left = open_port(&line, End::Left);
    let right = open_port(&line, End::Right);
    write_all(right.fd(), b"before");
    assert_eq!(read_until(left.fd(), |got| got.len() >= 6), b"before");

    line.unplug(End::Left);
    let mut byte = [0];
    assert!(matches!(read(left.fd(), &mut byte), Ok(0) | Err(Errno::IO)));
    assert_eq!(write(left.fd(), b"x"), Err(Errno::IO));
    left.unsent_bytes().expect_err("the device is gone");
    drop(left);
    let error = refusal(&line.path(End::Left), &LineOptions::default());
    assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");

    line.replug(End::Left);
    let left = open_port(&line, End::Left);
    write_all(left.fd(), b"after");
    assert_eq!(read_until(right.fd(), |got| got.len() >= 5), b"after");
}

/// What the line carries each way, as a share of its rate; all bytes are checked.
fn shares_of_rate() -> [f64; 2] {
    const BAUD: u32 = 115_200;
    let bytes = pattern(2 * BAUD as usize / 10);
    let line = SerialLine::start(Faults::default(), Some(BAUD));
    let ports = [open_port(&line, End::Left), open_port(&line, End::Right)];
    let [left, right] = ports.each_ref().map(|port| port.fd().as_fd());
    let shares = std::thread::scope(|scope| {
        let ways = [(left, right), (right, left)].map(|(from, to)| {
            let bytes = &bytes;
            scope.spawn(move || write_all(from, bytes));
            scope.spawn(move || {
                let mut got = read_until(to, |got| !got.is_empty());
                let (begun, first) = (Instant::now(), got.len());
                got.extend(read_until(to, |more| first + more.len() >= bytes.len()));
                let rate = (bytes.len() - first) as f64 / begun.elapsed().as_secs_f64();
                assert!(got == *bytes, "the bytes are others");
                rate * 10.0 / f64::from(BAUD)
            })
        });
        ways.map(|way| way.join().expect("all bytes are read"))
    });
    for end in [End::Left, End::Right] {
        let counts = line.counts_from(end);
        assert_eq!((counts.taken, counts.given), (bytes.len() as u64, bytes.len() as u64));
        assert_eq!(counts.unheard, 0);
    }
    shares
}

/// A busy machine makes it slower, never faster.
#[test]
fn a_clean_line_carries_every_byte_at_its_rate_both_ways() {
    const TRIES: usize = 3;
    let is_filled = (0..TRIES).any(|_| {
        let shares = shares_of_rate();
        println!("{shares:.4?} of the line's rate");
        assert!(shares.iter().all(|&share| share <= 1.02), "{shares:?}");
        shares.iter().all(|&share| share >= 0.9)
    });
    assert!(is_filled, "0.9 of the line's rate: not in {TRIES} tries");
}

/// The bytes at the right end for `bytes` written at the left, with these faults.
fn spoil(faults: Faults, bytes: &[u8]) -> (Vec<u8>, Counts) {
    let line = SerialLine::start(faults, None);
    let (left, right) = (open_port(&line, End::Left), open_port(&line, End::Right));
    let got = std::thread::scope(|scope| {
        let from = left.fd().as_fd();
        scope.spawn(move || write_all(from, bytes));
        read_until(right.fd(), |got| {
            let counts = line.counts_from(End::Left);
            let over = counts.given + counts.dropped - counts.repeated;
            over == bytes.len() as u64 && counts.given == got.len() as u64
        })
    });
    (got, line.counts_from(End::Left))
}

#[test]
fn faults_come_as_often_as_asked_and_are_counted() {
    let bytes = pattern(200_000);
    let about_2000 = 1800..=2200;
    let flips = Faults { seed: 1, flip_one_in: 100, ..Faults::default() };
    let (got, counts) = spoil(flips, &bytes);
    let changed: Vec<u32> =
        got.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones()).filter(|&n| n > 0).collect();
    assert_eq!((got.len(), changed.len() as u64), (bytes.len(), counts.flipped));
    assert!(changed.iter().all(|&bits| bits == 1) && about_2000.contains(&counts.flipped));

    let all = Faults {
        drop_one_in: 100,
        repeat_one_in: 100,
        pause_one_in: 10_000,
        pause_millis_max: 5,
        ..flips
    };
    let (got, counts) = spoil(all, &bytes);
    for count in [counts.dropped, counts.flipped, counts.repeated] {
        assert!(about_2000.contains(&count), "{counts:?}");
    }
    assert!((8..=40).contains(&counts.pauses), "{counts:?}");
    assert_eq!(got.len() as u64, 200_000 - counts.dropped + counts.repeated);
    // The same seed, the same faults; another, others.
    let again = spoil(all, &bytes);
    assert!(again.0 == got && again.1 == counts);
    let other = spoil(Faults { seed: 2, ..all }, &bytes);
    let distinct: HashSet<_> = [&got, &other.0].into_iter().collect();
    assert_eq!(distinct.len(), 2);
}

#[test]
fn nothing_passes_while_the_line_is_cut() {
    let line = clean_line();
    let (left, right) = (open_port(&line, End::Left), open_port(&line, End::Right));
    line.cut();
    write_all(left.fd(), b"lost");
    assert!(eventually(DEADLINE, || line.counts_from(End::Left).unheard == 4));
    line.mend();
    write_all(left.fd(), b"heard");
    assert_eq!(read_until(right.fd(), |got| got.len() >= 5), b"heard");
}
