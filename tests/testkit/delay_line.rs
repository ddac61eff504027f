//! A long path in the place of the network between connector and receptor: so many bytes a
//! second, each of them so much later at the other side.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// Bytes taken from a sender at a time, so that the rate is smooth: a millisecond's worth.
const PIECE_BYTES: usize = 64 * 1024;

/// How far a direction may catch up on its rate after it was held up by a busy machine.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Properties of a path, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// From one side to the other: half a round trip.
    pub delay: Duration,
    /// How much it carries.
    pub bytes_per_sec: f64,
}

/// Something on its way: bytes, or the end of data.
type Piece = (Instant, Option<Vec<u8>>);

/// The line; takes no new connections after drop.
pub struct DelayLine {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl DelayLine {
    /// Listens on loopback and carries each connection to `target`.
    pub fn start(path: Path, target: SocketAddr) -> DelayLine {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                carry_both_ways(path, client, server);
            }
        });
        DelayLine { address, stopping }
    }

    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails, it has already ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry_both_ways(path: Path, client: TcpStream, server: TcpStream) {
    let ends = Arc::new([client, server]);
    for end in ends.iter() {
        end.set_nodelay(true).expect("Nagle can be turned off");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, receiver) = mpsc::channel();
        let (taking, giving) = (Arc::clone(&ends), Arc::clone(&ends));
        std::thread::spawn(move || take(path, &taking[from], &sender));
        std::thread::spawn(move || {
            if give(path, &giving[to], &receiver).is_err() {
                // Broken at one side: broken at both.
                for end in giving.iter() {
                    let _ = end.shutdown(Shutdown::Both);
                }
            }
        });
    }
}

/// Takes bytes as fast as the path carries them.
fn take(path: Path, mut from: &TcpStream, line: &Sender<Piece>) {
    let mut free_at = Instant::now();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        // A connection that breaks ends here like one that ends.
        let got = from.read(&mut piece).unwrap_or(0);
        piece.truncate(got);
        let now = Instant::now();
        if line.send((now, (got > 0).then_some(piece))).is_err() || got == 0 {
            return;
        }
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        free_at = free_at.max(earliest) + Duration::from_secs_f64(got as f64 / path.bytes_per_sec);
        std::thread::sleep(free_at.saturating_duration_since(now));
    }
}

/// Gives each piece when it has been on its way for long enough.
fn give(path: Path, mut to: &TcpStream, line: &Receiver<Piece>) -> std::io::Result<()> {
    while let Ok((taken_at, piece)) = line.recv() {
        std::thread::sleep((taken_at + path.delay).saturating_duration_since(Instant::now()));
        match piece {
            Some(bytes) => to.write_all(&bytes)?,
            None => to.shutdown(Shutdown::Write)?,
        }
    }
    Ok(())
}
