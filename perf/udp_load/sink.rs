//! Takes datagrams and looks at each.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, getsockopt, recvmmsg, recvmsg, setsockopt, sockopt,
};
use serde_json::{Value, json};

use crate::SizeWords;
use crate::content::Sizes;
use crate::sockets;
use crate::tally::Tally;

/// Longest wait in the kernel, so that the end is noticed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Datagrams that are taken at a time, as many as there are.
const BATCH: usize = 32;

/// Room for each: the largest run that UDP_GRO makes.
const ROOM_BYTES: usize = 65_536;

/// Gives the tally what has come, after waiting for it.
type Take<'a> = dyn FnMut(&mut Tally) -> io::Result<()> + 'a;

#[derive(Args)]
pub(crate) struct Options {
    /// UDP port of 127.0.0.1 to take datagrams at.
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    size: SizeWords,
    /// Takes runs of datagrams as they are (UDP_GRO).
    #[arg(long)]
    gro: bool,
    /// Ends after so many.
    #[arg(long)]
    count: Option<u64>,
    /// Ends when none came for so long after the first.
    #[arg(long, default_value_t = 500)]
    idle_millis: u64,
    /// Ends when not even a first came for so long.
    #[arg(long, default_value_t = 10.0)]
    first_secs: f64,
}

pub(crate) fn run(options: &Options) -> Result<Value, String> {
    let socket = sockets::listen(options.port)?;
    let asked = |error: io::Error| format!("port {}: {error}", options.port);
    socket.set_read_timeout(Some(LOOK_AGAIN)).map_err(asked)?;
    let room = getsockopt(&socket, sockopt::RcvBuf).map_err(|error| asked(error.into()))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).map_err(asked)?;
    }
    let sizes = options.size.sizes()?;
    let mut take: Box<Take> = if options.gro {
        let error = "UDP_GRO: the kernel has it since 5.0";
        setsockopt(&socket, sockopt::UdpGroSegment, &true).map_err(|_| error)?;
        let mut room = vec![0; ROOM_BYTES];
        let socket = &socket;
        Box::new(move |tally| take_run(socket, &mut room, tally))
    } else {
        let mut room = vec![0; ROOM_BYTES * BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let socket = &socket;
        Box::new(move |tally| take_batch(socket, &mut room, &mut headers, tally))
    };
    watch(options, sizes, &stop, &mut take).map(|mut report| {
        report["receive_buffer_bytes"] = json!(room);
        report
    })
}

/// Takes until the end.
fn watch(
    options: &Options,
    sizes: Sizes,
    stop: &AtomicBool,
    take: &mut Take,
) -> Result<Value, String> {
    let idle = Duration::from_millis(options.idle_millis);
    let first = Duration::from_secs_f64(options.first_secs);
    let began = Instant::now();
    let mut tally = Tally::new(sizes);
    // When the first and the last came, as far as they were looked at.
    let mut between: Option<(Instant, Instant)> = None;
    while !stop.load(Ordering::Relaxed) {
        match take(&mut tally) {
            Ok(()) => {
                let now = Instant::now();
                between = Some((between.map_or(now, |(first, _)| first), now));
                if options.count.is_some_and(|count| tally.received() >= count) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let is_over = match between {
                    Some((_, last)) => last.elapsed() >= idle,
                    None => began.elapsed() >= first,
                };
                if is_over {
                    break;
                }
            }
            Err(error) => return Err(format!("port {}: {error}", options.port)),
        }
    }
    let secs = between.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    let (counts, next) = tally.finish();
    Ok(json!({
        "received": counts.received,
        "bytes": counts.bytes,
        "secs": secs,
        "right": counts.right,
        "lost": next - counts.right,
        "out_of_order": counts.out_of_order,
        "duplicated": counts.duplicated,
        "merged": counts.merged,
        "split": counts.split,
        "corrupt": counts.corrupt,
        "misplaced": counts.misplaced,
    }))
}

/// Waits for one datagram, and takes what others there are.
fn take_batch(
    socket: &UdpSocket,
    room: &mut [u8],
    headers: &mut MultiHeaders<()>,
    tally: &mut Tally,
) -> io::Result<()> {
    let mut rooms = room.chunks_exact_mut(ROOM_BYTES);
    let mut parts: [[IoSliceMut; 1]; BATCH] =
        std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
    let flags = MsgFlags::MSG_WAITFORONE;
    for message in recvmmsg(socket.as_raw_fd(), headers, parts.iter_mut(), flags, None)? {
        tally.take(message.iovs().next().unwrap_or_default());
    }
    Ok(())
}

/// Takes one datagram, or a run of them.
fn take_run(socket: &UdpSocket, room: &mut [u8], tally: &mut Tally) -> io::Result<()> {
    let mut control = cmsg_space!(i32);
    let (bytes, size) = {
        let mut parts = [IoSliceMut::new(room)];
        let fd = socket.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let size = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        (message.bytes, size)
    };
    match size {
        Some(size) if size > 0 && bytes > size => {
            room[..bytes].chunks(size).for_each(|datagram| tally.take(datagram));
        }
        _ => tally.take(&room[..bytes]),
    }
    Ok(())
}
