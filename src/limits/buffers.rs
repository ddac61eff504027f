//! Receive buffers, the pool for data that slow readers have not taken, and gathered sends from both.

/// Small receive buffers: a page each, since interactive messages rarely exceed one, and a TCP
/// segment or two fit. 512 of them (2 MiB) let every one of 200 streams hold two, with room.
pub const SMALL_BUFFER_BYTES: u32 = 4 << 10;
/// See [`SMALL_BUFFER_BYTES`]. A power of two, as the kernel's buffer rings are.
pub const SMALL_BUFFERS: u16 = 512;

/// Bulk receive buffers: a tunnel moved a seventh more with 256 KiB than with 64 KiB, at a fifth
/// less CPU (`docs/performance.md`). 64 of them are 16 MiB, used as far as there is bulk.
pub const BULK_BUFFER_BYTES: u32 = 256 << 10;
/// See [`BULK_BUFFER_BYTES`]. A power of two, as the kernel's buffer rings are.
pub const BULK_BUFFERS: u16 = 64;

/// Bulk receive buffers that local sockets may not use, so that the link can always be read: a
/// tunnel that stops reading because its own buffers wait for the link could wait for ever.
pub const BULK_BUFFERS_FOR_LINKS: usize = 24;

/// Small receive buffers that are left when payload that waits for the link no longer keeps its own:
/// it is copied into buffers of the engine's own pool, many messages into one. A message of 100 bytes
/// keeps forty times its size otherwise, and a link that stands still would soon have them all.
pub const SMALL_BUFFERS_SCARCE: usize = SMALL_BUFFERS as usize / 4;

/// The same for bulk receive buffers: a quarter of those that local sockets may use, beside those
/// that they may not.
pub const BULK_BUFFERS_SCARCE: usize =
    BULK_BUFFERS_FOR_LINKS + (BULK_BUFFERS as usize - BULK_BUFFERS_FOR_LINKS) / 4;

/// Most payload that is copied out of a bulk buffer for that: it would keep eight times its size.
pub const PACKED_BYTES_MAX: usize = BULK_BUFFER_BYTES as usize / 8;

/// Pieces of one stream up to which they are copied to where those of the tunnel's other streams stand:
/// few messages need no buffer of their own. The rest of a stream is put together in buffers of its
/// own, so that a piece of it is a whole buffer however small the messages are.
pub const PACKED_TOGETHER_MAX: usize = 8;

/// Size of a buffer of the engine's own pool, which holds frame heads and data that slow readers have
/// not taken.
pub const POOL_BUFFER_BYTES: u32 = 16 << 10;

/// Most buffers of the pool: 1 GiB, used only as far as slow readers make it necessary. It bounds the data
/// that a process holds for them, a thousand whole windows; a stream that finds it used up is reset.
pub const POOL_BUFFERS: u32 = 64 << 10;

/// Least buffers of the pool, however little memory there is: 4 MiB, a batch for each of sixteen tunnels.
pub const POOL_BUFFERS_MIN: u32 = 256;

/// Part of the pool kept back from slow readers, so that frames can always be written and links be
/// read ahead: a 64th, 16 MiB.
pub const POOL_RESERVE_PART: usize = 64;

/// Buffers of the pool without which no frame is begun: its head (an answer to a ping of 64 KiB is the
/// longest), and one for where that begins. Payload that finds no room there is not copied.
pub const FRAME_BUFFERS: usize = (64 << 10) / POOL_BUFFER_BYTES as usize + 2;

/// Bytes in one gathered send to the link. Large enough that a bulk stream pays little per send
/// and little enough that a keystroke does not wait long behind it.
pub const BATCH_BYTES: usize = 256 << 10;

/// Parts in one gathered send to the link, at most: far below the kernel's own bound.
pub const BATCH_PARTS: usize = 256;

/// Parts in one gathered send to a local socket.
pub const LOCAL_PARTS: usize = 64;

/// Most parts of one gathered send: the kernel's own bound for a vector (`UIO_MAXIOV`); a longer
/// one is refused with `EMSGSIZE`. The rest of a longer list goes with the next send.
pub const GATHER_PARTS_MAX: usize = 1024;

const _: () = assert!(BATCH_PARTS < GATHER_PARTS_MAX && LOCAL_PARTS < GATHER_PARTS_MAX);

/// Parts a gathered send has room for before it first grows: a batch of frames, each with its
/// header and payload, of some thirty streams.
pub const GATHER_PARTS_START: usize = 64;

/// Control frames waiting for the link at which it is read no further, so that a peer that makes
/// us answer and does not read cannot fill our memory.
pub const CONTROL_BACKLOG: usize = 1024;
