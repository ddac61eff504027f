//! What the process may take in all, and how it is divided where the system allows less
//! (`policy::ceilings`).

use super::{BULK_BUFFER_BYTES, BULK_BUFFERS};
use super::{DATAGRAM_BUFFERS, RESOLVER_THREADS, SMALL_BUFFER_BYTES, SMALL_BUFFERS};

/// Receive buffers, in bytes: those of the two classes, and of datagrams. They are there whatever limit is set.
pub const RECEIVE_BYTES: u64 = SMALL_BUFFERS as u64 * SMALL_BUFFER_BYTES as u64
    + BULK_BUFFERS as u64 * BULK_BUFFER_BYTES as u64
    + DATAGRAM_BUFFERS as u64 * (64 << 10);

/// What comes beside that after the start, in bytes, and does not grow with the number of streams: queued lines of
/// the log (2 MiB), the resolver's libraries and answers, tables of names and of addresses.
pub const BASE_BYTES: u64 = 8 << 20;

/// Address space of the stacks of threads that look names up, in bytes: those of servers' names and of
/// clients'. Little of it is used.
pub const STACK_BYTES: u64 = 2 * RESOLVER_THREADS as u64 * (2 << 20);

/// The rest is divided into so many parts. One is left over.
pub const MEMORY_PARTS: u64 = 16;

/// Parts for the pool, which holds what slow readers have not taken: half.
pub const POOL_PARTS: u64 = 8;

/// Parts for connections: a quarter.
pub const CONNECTION_PARTS: u64 = 4;

/// Parts for tunnels, and for strangers.
pub const TUNNEL_PARTS: u64 = 2;

/// Parts for what proxies hold of requests and answers that are not whole.
pub const PROXY_PARTS: u64 = 1;

const _: () = assert!(POOL_PARTS + CONNECTION_PARTS + TUNNEL_PARTS + PROXY_PARTS < MEMORY_PARTS);

/// What a connection takes at most, in bytes, without its data: its state, its stream's, those of its operations, in
/// tables that have just doubled (some 3 KiB), a list of parts to send, and what the kernel counts for a socket
/// (some 3 KiB).
pub const CONNECTION_BYTES: u64 = 8 << 10;

/// Connections that are served however little memory there is: 512 KiB.
pub const CONNECTIONS_MIN: usize = 64;

/// What a tunnel takes at most, in bytes, without its streams: a handshake of encryption with what was received
/// of it, part of a record, frames that control.
pub const TUNNEL_BYTES: u64 = 128 << 10;

/// Tunnels that are served however little memory there is: 2 MiB.
pub const TUNNELS_MIN: usize = 16;

/// Most that proxies hold of requests and answers that are not whole, in bytes: a thousand of the largest.
pub const PROXIES_HELD_BYTES_MAX: u64 = 64 << 20;

/// They hold that much however little memory there is: eight of the largest.
pub const PROXIES_HELD_BYTES_MIN: u64 = 512 << 10;

/// Part of the pool that a stream's window may be, at the most: of a small one many streams have to live.
pub const POOL_WINDOW_PART: u64 = 64;

/// Part of the pool that windows of one tunnel may be beyond the first ones, and that datagrams which wait for
/// a tunnel may be.
pub const POOL_BUDGET_PART: u64 = 8;

/// Part of the pool with less than which free no new streams are let in, so that those that are there
/// can go on.
pub const POOL_LOW_PART: usize = 4;

/// Part of the pool with less than which free buffers are taken from the streams that hold most. What is left holds
/// what a turn receives: [`RECEIVE_BYTES`] at the most, and seldom a tenth of that.
pub const POOL_SCARCE_PART: usize = 8;
