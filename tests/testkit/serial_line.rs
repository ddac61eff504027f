//! A serial line between two devices, in place of a cable with a UART at each end, with a rate and an
//! error rate. It can be cut and unplugged.
//!
//! The devices are pseudo terminals. A relay carries the bytes between them, damaged from a seed: the
//! fate of a byte depends on the seed and on the number of bytes before it, not on the time.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tempfile::TempDir;

/// Interval of the relay: the most that it adds to a byte's time on an idle machine.
const TICK: Duration = Duration::from_micros(500);

/// Bytes that a direction buffers, besides the kernel's buffer for the writer (some 11 KiB): those of a
/// usual UART driver, and those of a fast line while a busy machine does not schedule the relay.
const HELD_BYTES_MIN: usize = 4096;
/// See [`HELD_BYTES_MIN`].
const HELD: Duration = Duration::from_millis(50);

/// Bits of a character on the line: a start bit, eight of data, a stop bit.
const CHARACTER_BITS: f64 = 10.0;

/// One of the two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The first.
    Left,
    /// The second.
    Right,
}

impl End {
    /// The one at the other side.
    pub fn other(self) -> End {
        match self {
            End::Left => End::Right,
            End::Right => End::Left,
        }
    }
}

/// How bad the line is, the same both ways. Each is the mean distance in bytes between two faults
/// of a kind; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Both directions have their faults from it, each its own.
    pub seed: u64,
    /// A byte is lost.
    pub drop_one_in: u32,
    /// One bit of a byte is changed.
    pub flip_one_in: u32,
    /// A byte comes twice.
    pub repeat_one_in: u32,
    /// Nothing passes for a while.
    pub pause_one_in: u32,
    /// The longest such while, in whole milliseconds; the shortest is one.
    pub pause_millis_max: u64,
}

/// The fate of the bytes of one direction, in bytes unless noted otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken from the device that they were written to.
    pub taken: u64,
    /// Lost by a fault.
    pub dropped: u64,
    /// Changed in one bit.
    pub flipped: u64,
    /// Given twice: the second ones.
    pub repeated: u64,
    /// How often nothing passed for a while.
    pub pauses: u64,
    /// Lost because the line was cut, or the other device was not open.
    pub unheard: u64,
    /// Given to the other device, repeated ones too.
    pub given: u64,
}

/// The line; its devices are removed on drop.
pub struct SerialLine {
    devices: TempDir,
    shared: Arc<Shared>,
    relay: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The master sides, `None` while unplugged.
    ends: [Option<OwnedFd>; 2],
    /// The direction from each end.
    directions: [Direction; 2],
    cut: bool,
    stopping: bool,
}

impl SerialLine {
    /// Two devices and a line between them, at `baud` bits a second or as fast as it goes. Says the
    /// seed of its faults.
    pub fn start(faults: Faults, baud: Option<u32>) -> SerialLine {
        println!("serial line: {faults:?}, baud {baud:?}");
        let mut line = SerialLine {
            devices: TempDir::new().expect("a directory can be made"),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ends: [None, None],
                    directions: [0, 1].map(|from| Direction::new(faults, baud, from)),
                    cut: false,
                    stopping: false,
                }),
                changed: Condvar::new(),
            }),
            relay: None,
        };
        line.replug(End::Left);
        line.replug(End::Right);
        let shared = Arc::clone(&line.shared);
        line.relay = Some(std::thread::spawn(move || shared.carry()));
        line
    }

    /// The name of a device: there while it is plugged in, and always the same.
    pub fn path(&self, end: End) -> PathBuf {
        self.devices.path().join(match end {
            End::Left => "left",
            End::Right => "right",
        })
    }

    /// The counts of the bytes written to a device since the start.
    pub fn counts_from(&self, end: End) -> Counts {
        self.state().directions[end as usize].counts
    }

    /// Removes a device, as a USB adapter that is pulled out: processes that have it open find it hung
    /// up, its name is removed, and bytes on the line are lost.
    pub fn unplug(&self, end: End) {
        let mut state = self.state();
        std::fs::remove_file(self.path(end)).expect("the device is plugged in");
        state.ends[end as usize] = None;
        for direction in &mut state.directions {
            direction.clear();
        }
    }

    /// Brings a device back: another one by the same name.
    pub fn replug(&self, end: End) {
        let mut state = self.state();
        let (master, device) = new_device();
        symlink(device, self.path(end)).expect("the device is not plugged in");
        state.ends[end as usize] = Some(master);
    }

    /// From now on all bytes written are lost.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// The line carries again.
    pub fn mend(&self) {
        self.state().cut = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        // Not a panic on top of a panic of the relay.
        if let Ok(mut state) = self.shared.state.lock() {
            state.stopping = true;
        }
        self.shared.changed.notify_all();
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
    }
}

/// A pseudo terminal: its master side, and the name of the other, raw from the beginning.
fn new_device() -> (OwnedFd, PathBuf) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pseudo terminal");
    unlockpt(&master).expect("its other side can be opened");
    ioctl_fionbio(&master, true).expect("it can be non-blocking");
    // Else the line would answer to itself with an echo until a program has set the device.
    let device = ioctl_tiocgptpeer(&master, flags).expect("the other side");
    let mut settings = tcgetattr(&device).expect("its settings");
    settings.make_raw();
    tcsetattr(&device, OptionalActions::Now, &settings).expect("it can be raw");
    let name = ptsname(&master, Vec::new()).expect("its name");
    (master, Path::new(name.to_str().expect("text")).to_owned())
}

impl Shared {
    /// The relay: carries both ways until it is stopped.
    fn carry(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.stopping {
            let State { ends, directions, cut, .. } = &mut *state;
            for (from, direction) in directions.iter_mut().enumerate() {
                let now = Instant::now();
                direction.take(ends[from].as_ref(), now);
                direction.give(ends[1 - from].as_ref().filter(|_| !*cut), now);
            }
            state = self.changed.wait_timeout(state, TICK).unwrap().0;
        }
    }
}

/// One way of the line.
struct Direction {
    faults: Faults,
    random: fastrand::Rng,
    drop: Chance,
    flip: Chance,
    repeat: Chance,
    pause: Chance,
    bytes_per_sec: Option<f64>,
    held_bytes_max: usize,
    /// Taken, not yet over the line.
    held: VecDeque<u8>,
    /// Over the line, not yet taken by the other device.
    arrived: Vec<u8>,
    /// When the line was done with the last byte.
    free_at: Instant,
    counts: Counts,
}

impl Direction {
    fn new(faults: Faults, baud: Option<u32>, from: u64) -> Direction {
        let mut random = fastrand::Rng::with_seed(faults.seed.wrapping_mul(2).wrapping_add(from));
        let bytes_per_sec = baud.map(|baud| f64::from(baud) / CHARACTER_BITS);
        let fast = bytes_per_sec.unwrap_or(f64::from(1 << 24)) * HELD.as_secs_f64();
        Direction {
            faults,
            drop: Chance::new(faults.drop_one_in, &mut random),
            flip: Chance::new(faults.flip_one_in, &mut random),
            repeat: Chance::new(faults.repeat_one_in, &mut random),
            pause: Chance::new(faults.pause_one_in, &mut random),
            random,
            bytes_per_sec,
            held_bytes_max: HELD_BYTES_MIN.max(fast as usize),
            held: VecDeque::new(),
            arrived: Vec::new(),
            free_at: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// Reads written bytes, as far as there is room for them.
    fn take(&mut self, from: Option<&OwnedFd>, now: Instant) {
        let Some(from) = from else { return };
        // A line that was idle begins now; one that was not goes on, also when we were kept from
        // running.
        if self.held.is_empty() {
            self.free_at = self.free_at.max(now);
        }
        let mut buffer = [0; HELD_BYTES_MIN];
        while self.held.len() < self.held_bytes_max {
            let room = buffer.len().min(self.held_bytes_max - self.held.len());
            match read(from, &mut buffer[..room]) {
                Ok(0) | Err(Errno::AGAIN) => break,
                // No process has the device open.
                Err(Errno::IO) => break,
                Ok(got) => {
                    self.counts.taken += got as u64;
                    self.held.extend(&buffer[..got]);
                }
                Err(error) => panic!("reading what was written to a device: {error}"),
            }
        }
    }

    /// Delivers the bytes that have crossed the line by now; without a `to` they are lost.
    fn give(&mut self, to: Option<&OwnedFd>, now: Instant) {
        let to = to.filter(|to| is_open(to));
        if !self.deliver(to) {
            // Time in which it had to wait is no time in which it carried.
            self.free_at = self.free_at.max(now);
            return;
        }
        while now >= self.free_at && self.pass_one(to.is_some(), now) {}
        self.deliver(to);
    }

    /// Carries the next byte; false if there is none.
    fn pass_one(&mut self, heard: bool, now: Instant) -> bool {
        let character = self.bytes_per_sec.map_or(0.0, |rate| 1.0 / rate);
        let passed_at = self.free_at + Duration::from_secs_f64(character);
        // It is there when its last bit is.
        if passed_at > now {
            return false;
        }
        let Some(mut byte) = self.held.pop_front() else { return false };
        self.free_at = passed_at;
        let random = &mut self.random;
        let dropped = self.drop.comes(random);
        let flipped = self.flip.comes(random);
        let repeated = self.repeat.comes(random);
        if self.pause.comes(random) {
            self.counts.pauses += 1;
            let millis = random.u64(1..=self.faults.pause_millis_max.max(1));
            self.free_at = now + Duration::from_millis(millis);
        }
        if !heard {
            self.counts.unheard += 1;
            return true;
        }
        if dropped {
            self.counts.dropped += 1;
            return true;
        }
        if flipped {
            self.counts.flipped += 1;
            byte ^= 1 << random.u8(0..8);
        }
        self.arrived.push(byte);
        if repeated {
            self.counts.repeated += 1;
            self.arrived.push(byte);
        }
        true
    }

    /// Writes arrived bytes; false if some of them have to wait for the reader, as with flow control.
    fn deliver(&mut self, to: Option<&OwnedFd>) -> bool {
        let mut done = 0;
        while done < self.arrived.len() {
            let Some(to) = to else {
                self.counts.unheard += (self.arrived.len() - done) as u64;
                done = self.arrived.len();
                break;
            };
            match write(to, &self.arrived[done..]) {
                Ok(0) | Err(Errno::AGAIN) => break,
                // Closed just now, as the next iteration finds.
                Err(Errno::IO) => break,
                Ok(wrote) => {
                    self.counts.given += wrote as u64;
                    done += wrote;
                }
                Err(error) => panic!("giving bytes to a device: {error}"),
            }
        }
        self.arrived.drain(..done);
        self.arrived.is_empty()
    }

    fn clear(&mut self) {
        self.counts.unheard += (self.held.len() + self.arrived.len()) as u64;
        self.held.clear();
        self.arrived.clear();
    }
}

/// Whether a program has the device of this master side open.
fn is_open(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("a device can be polled");
    !fds[0].revents().contains(PollFlags::HUP)
}

/// Something that comes once in so many bytes, at random.
struct Chance {
    /// Mean distance in bytes; 0 is never.
    one_in: u32,
    /// Bytes to the next.
    left: u64,
}

impl Chance {
    fn new(one_in: u32, random: &mut fastrand::Rng) -> Chance {
        Chance { one_in, left: Chance::distance(one_in, random) }
    }

    /// How far it is to the next, as independent draws for each byte would have it.
    fn distance(one_in: u32, random: &mut fastrand::Rng) -> u64 {
        let missed = (1.0 - 1.0 / f64::from(one_in.max(2))).ln();
        1 + ((1.0 - random.f64()).ln() / missed) as u64
    }

    /// Whether it comes with this byte.
    fn comes(&mut self, random: &mut fastrand::Rng) -> bool {
        if self.one_in == 0 {
            return false;
        }
        self.left -= 1;
        let comes = self.left == 0;
        if comes {
            self.left = Chance::distance(self.one_in, random);
        }
        comes
    }
}
