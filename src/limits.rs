//! Every bound of the program in one place, each with its reason.
//!
//! Queues, tables and buffers elsewhere take their size from here, so that the most memory a
//! process can hold follows from this file alone.

/// Default length of the kernel's queue of accepted connections per listener. The kernel cuts it
/// to `net.core.somaxconn` (4096 by default); clients wait there while the tunnel is down.
pub const LISTEN_BACKLOG: i32 = 1024;

/// How often FIFOs are tried that the peer has not opened yet, in milliseconds: soon enough that
/// nobody notices, seldom enough that waiting for days costs next to nothing.
pub const LINK_AGAIN_MILLIS: u64 = 50;
/// How long a command whose link has ended is given to end by itself, in milliseconds: its own exit
/// status says why.
pub const COMMAND_LEAVE_MILLIS: u64 = 500;
/// Characters of a command that are logged as its name.
pub const COMMAND_NAME_CHARS: usize = 80;

/// How often a device or FIFO is tried that is missing or taken, in milliseconds: somebody has to do
/// something about it.
pub const DEVICE_AGAIN_MILLIS: u64 = 1_000;

/// How long a port that is taken is asked for at the start, and how often, in milliseconds. The
/// kernel takes down the ring of a killed predecessor within tens of them.
pub const LISTEN_PATIENCE_MILLIS: u64 = 500;
/// See [`LISTEN_PATIENCE_MILLIS`].
pub const LISTEN_AGAIN_MILLIS: u64 = 10;

/// Deepest nesting of `+=FILE`. A loop is found by path before this; the bound is for chains that
/// never repeat a path (a FIFO or a generated file).
pub const PARAM_FILE_DEPTH: usize = 16;

/// Largest parameter file. Nobody writes one this long by hand; a device or a log given by
/// mistake must not be read into memory.
pub const PARAM_FILE_BYTES: u64 = 1 << 20;

/// Most entrance ports of one process, ranges counted out. Each is a listening descriptor.
pub const ENTRANCES_MAX: usize = 4096;

/// Payload of one chunk of the demo's and the benches' bulk traffic. A power of two well above a
/// tunnel packet, so that a chunk's own 12-byte header costs nothing that shows, and small enough
/// that a sender looks at the clock many times a second.
pub const DEMO_CHUNK_BYTES: usize = 1 << 20;

/// Bytes after which the demo's test pattern repeats: the first prime above 2^20, so that data
/// moved by a whole packet, buffer or chunk never meets the same bytes again.
pub const DEMO_PATTERN_BYTES: usize = 1_048_583;

/// Most that the demo's readers take from a socket at once; as large as the buffers of the
/// programs that it stands for.
pub const DEMO_READ_BYTES: usize = 256 << 10;

/// Longest message of a request/response measurement.
pub const DEMO_MESSAGE_BYTES: usize = 4096;

/// Longest silence on a socket of the demo before it gives up with an error. Loopback answers in
/// microseconds; a machine that is busy for ten seconds is not one to measure on.
pub const DEMO_STALL_SECS: u64 = 10;
/// Longest text of CONNECT or CONNECTED that is kept, in bytes. Two IPv6 addresses with ports
/// and the number before them take 105; a longer text is read to its end and cut.
pub const OPEN_TEXT_BYTES: usize = 256;

/// Streams at once towards an original peer. It breaks its tunnel at 62 or 63 (61 where it
/// connects with one port); two are left as room for streams that both sides open at once.
pub const ORIGINAL_STREAMS_MAX: u32 = 60;

/// Largest stream id towards an original peer: its ids are 8 bits, and 255 says "none".
pub const ORIGINAL_ID_MAX: u32 = 254;

/// Streams at once that we offer to one of ours, in one tunnel.
pub const STREAMS_MAX: u32 = 16_000;

/// Stream ids that are used before one is used again, as a multiple of the streams at once: a
/// late frame to an ended stream then finds its id unused.
pub const ID_REUSE_DISTANCE: u32 = 4;

/// First stream id. The original uses 0 and 1 for the tunnel itself.
pub const STREAM_ID_FIRST: u32 = 2;

/// Bytes of one stream that we take from one of ours before our local socket has taken any.
/// A megabyte carries 4 GB/s at the 250 us that a loaded loopback tunnel takes to answer, and
/// 100 MB/s at 10 ms; half of it cost a tenth of the throughput (`docs/performance.md`).
pub const WINDOW_BYTES: u32 = 1 << 20;

/// Bounds on what a peer's offer may ask us to have on the way in one stream, in bytes.
pub const PEER_WINDOW_BYTES_MIN: u32 = 64 << 10;
/// See [`PEER_WINDOW_BYTES_MIN`].
pub const PEER_WINDOW_BYTES_MAX: u32 = 16 << 20;

/// Packets unacknowledged at which the original stops reading a stream: it goes on while not
/// more than this many packet sizes are on the way.
pub const ORIGINAL_WINDOW_PACKETS: u64 = 4;

/// Bytes of one stream that are read from its local socket ahead of the link. One bulk receive
/// buffer: enough to fill a batch, little enough that a blocked link costs little memory.
pub const READ_AHEAD_BYTES: u64 = 256 << 10;

/// Answers to ECHO that wait for the link. A peer asks once in 30 s; one that floods loses
/// those that come while these wait.
pub const PONGS_MAX: usize = 8;

/// Longest reason that travels in a CLOSE, in bytes.
pub const REASON_BYTES: usize = 200;

/// How long an acknowledgement may wait for a frame to ride with. Towards one of ours only: the
/// window is large, so that nobody waits for it.
pub const ACK_DELAY_MICROS: u64 = 20_000;

/// Where the other side has answered already, CLOSE is held back this long after the last byte
/// of the answer, towards an original peer (see `docs/architecture.md`, half-close).
pub const ANSWERED_HOLD_MICROS: u64 = 1_000_000;

/// Silence is given up after this many keep-alive intervals: 90 s at the original's 30.
pub const KEEPALIVE_INTERVALS: u32 = 3;

const _: () =
    assert!(PEER_WINDOW_BYTES_MIN <= WINDOW_BYTES && WINDOW_BYTES <= PEER_WINDOW_BYTES_MAX);
const _: () = assert!(STREAMS_MAX * ID_REUSE_DISTANCE < 65_535 - 2);
const _: () = assert!(ORIGINAL_STREAMS_MAX * ID_REUSE_DISTANCE <= ORIGINAL_ID_MAX - 2);
/// Most parts of one gathered send: the kernel's own bound for a vector (`UIO_MAXIOV`); a longer
/// one is refused with `EMSGSIZE`. The rest of a longer list goes with the next send.
pub const GATHER_PARTS_MAX: usize = 1024;

/// Parts a gathered send has room for before it first grows: a batch of frames, each with its
/// header and payload, of some thirty streams.
pub const GATHER_PARTS_START: usize = 64;

/// Bytes in one gathered send to the link. Large enough that a bulk stream pays little per send
/// and little enough that a keystroke does not wait long behind it.
pub const BATCH_BYTES: usize = 256 << 10;

/// Parts in one gathered send to the link, at most: leaves the kernel's own bound far away.
pub const BATCH_PARTS: usize = 256;

/// Payload up to this many bytes is copied behind its header; what is longer is sent from the
/// buffer that it was received into. A copy of this size costs about what one more part does.
pub const COPY_BYTES: usize = 1024;

/// Parts in one gathered send to a local socket.
pub const LOCAL_PARTS: usize = 64;

/// Size of a buffer of the engine's own pool, which holds frame heads and what slow readers have
/// not taken.
pub const POOL_BUFFER_BYTES: u32 = 16 << 10;

/// Buffers of the pool: 1 GiB, used only as far as slow readers make it necessary. It is the
/// bound on what a process holds for them, a thousand whole windows; a stream that finds it used
/// up is reset.
pub const POOL_BUFFERS: u32 = 64 << 10;

/// Bulk receive buffers that local sockets may not use, so that the link can always be read: a
/// tunnel that stops reading because its own buffers wait for the link could wait for ever.
pub const BULK_BUFFERS_FOR_LINKS: usize = 24;

/// Control frames waiting for the link at which it is read no further, so that a peer that makes
/// us answer and does not read cannot fill our memory.
pub const CONTROL_BACKLOG: usize = 1024;

/// Local connections of one process. Each is a descriptor; the process raises its own limit of
/// those as far as it may.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Persistent connections that a receptor holds at once.
pub const TUNNELS_MAX: usize = 1024;

/// Threads that look names up, and how many look-ups may wait for them.
pub const RESOLVER_THREADS: usize = 4;
/// See [`RESOLVER_THREADS`].
pub const RESOLVER_QUEUE: usize = 1024;

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Shortest and longest wait before the persistent connection is dialled again. The first dial
/// after a healthy connection is at once.
pub const REDIAL_FIRST_MILLIS: u64 = 200;
/// See [`REDIAL_FIRST_MILLIS`].
pub const REDIAL_MAX_MILLIS: u64 = 15_000;

/// How long a process that drains waits for peers to know of it, before, and to have read its last
/// bytes, after: more than a socket's buffer takes on a path of 10 Mbit/s.
pub const LEAVE_MILLIS: u64 = 5_000;

/// A persistent connection that was up this long was healthy: the next dial is at once.
pub const HEALTHY_MILLIS: u64 = 5_000;

/// How long a worker looks for the next small message before it sleeps, in microseconds: what an
/// answer takes to come from another program of the machine that has to be woken up for it.
pub const WATCH_MICROS: u64 = 100;

/// How closely small messages must follow each other for that, in microseconds. It bounds what
/// looking in vain costs: with fewer than some 7,000 messages a second there is none.
pub const WATCH_INTERVAL_MICROS: u64 = 140;

/// How often connections with a deadline are looked at.
pub const SWEEP_MILLIS: u64 = 100;

/// How long an entrance pauses when the process is out of descriptors.
pub const ACCEPT_PAUSE_MILLIS: u64 = 200;

/// Refused streams that are logged one by one in a second; the rest are counted.
pub const REFUSALS_LOGGED_PER_SECOND: u32 = 20;

const _: () = assert!(BATCH_PARTS < GATHER_PARTS_MAX && LOCAL_PARTS < GATHER_PARTS_MAX);
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

/// Receive buffers of a class that the kernel has at once, in bytes: it goes through them in turn,
/// and those of a processor's cache serve better than all. Copied bulk is a tenth faster with 2 MiB
/// than with all 16 (`docs/performance.md`).
pub const URING_READY_BYTES: u32 = 2 << 20;

/// Operations that can be queued to the ring before the kernel is entered: a turn of the worker
/// that starts two for each of 200 streams. More are submitted early, never refused.
pub const URING_SUBMISSION_ENTRIES: u32 = 512;

/// A send of at least this many bytes may go from our own pages instead of being copied, where the
/// kernel reports that it then does not copy. Pinning pages and a second completion cost about what
/// copying some tens of KiB does, and so much again must be gained.
pub const ZERO_COPY_BYTES_MIN: usize = 128 << 10;

/// Parts of such sends that may wait for the far end to acknowledge them, in all: a quarter of
/// the bulk buffers, so that a long path cannot take those that are received into. What is beyond
/// is copied.
pub const ZERO_COPY_PARTS_MAX: usize = BULK_BUFFERS as usize / 4;

/// Descriptors at once of which it is known whether the kernel copies. They are searched for every
/// such send; those that come when all are open are not tried.
pub const ZERO_COPY_PATHS_MAX: usize = 64;

/// Completions the kernel can queue to us. Multishot operations add without being asked: one per
/// receive buffer (576), one per accepted connection (up to the listener's backlog), and the end
/// of every operation. Beyond it the kernel keeps them aside, more slowly, and none is lost.
pub const URING_COMPLETION_ENTRIES: u32 = 4096;

/// Operations in flight before their table first grows: four for each of 200 streams, and the
/// entrances.
pub const OPERATIONS_START: usize = 1024;

/// Descriptors that one look at epoll tells of. The kernel goes on with the others at the next.
pub const EPOLL_EVENTS_MAX: usize = 256;

/// Receives that a multishot receive of the epoll driver makes in one turn, and connections that an
/// accept takes: then others have theirs.
pub const EPOLL_REPEATS_MAX: usize = 8;

/// Turns in a row that the epoll driver may fill with what was done at once, before it looks at what
/// else has come: a look costs as much as a small receive.
pub const EPOLL_UNSEEN_TURNS_MAX: u32 = 2;

/// Times a submission that the kernel refuses for the moment (`EAGAIN`, `EBUSY`: out of memory, or
/// completions waiting) is tried again within one wait, reaping in between.
pub const URING_SUBMIT_TRIES_MAX: u32 = 16;

/// Longest wait for cancelled operations to end when a driver is dropped. They end at once, save
/// when the kernel is stuck in one; then their memory is given up instead of their safety.
pub const URING_TEARDOWN_MILLIS: u64 = 2000;

/// Longest wait for a message that a probe of io_uring has sent to itself. It takes microseconds;
/// a machine stalled for seconds must not be taken for one without io_uring.
pub const URING_PROBE_MILLIS: u64 = 5000;
/// Largest sum of all parameter files, a file named twice counted twice: files that name each
/// other several times would else multiply with every level.
pub const PARAM_TOTAL_BYTES: u64 = 4 << 20;

/// Longest time that `TIMEOUT=` takes, in seconds (a year). Longer ones are typing errors, and
/// the engine may add any time up to this to a clock without overflow. "Never" is 0.
pub const TIMEOUT_SECS_MAX: u64 = 365 * 86_400;

/// Most exits of one process. They are searched in order for every new stream; as many as
/// entrances, so that each entrance of the peer can have its own.
pub const EXITS_MAX: usize = ENTRANCES_MAX;

/// Most `PERMIT=` of one process, and of one exit. They are searched for every address that a proxy's client asks for.
pub const PERMITS_MAX: usize = 256;

/// Most users of `AUTHORIZER=` of one process. All of them are looked at whenever somebody says who
/// it is.
pub const USERS_MAX: usize = 1024;

/// A path whose round trip is at most this is short: the same machine, rack or datacenter.
pub const SHORT_PATH_MICROS: u32 = 5_000;

/// Payload of one DATA frame of SockMux 1, in bytes: what a pipe holds, so that a full one goes as
/// one frame, and the head that is copied is a small part of it.
pub const FRAME_BYTES: u64 = 1 << 20;

/// Size of a pipe, in bytes: what the kernel gives without privilege (`fs.pipe-max-size`). It
/// stands for 256 pieces, each of which holds up to a page or a network fragment of 32 KiB.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe smaller than this is not worth having: the system is short of them.
pub const PIPE_BYTES_MIN: usize = 256 << 10;

/// Pipes of one process: without privilege a user has 64 MiB of them (`fs.pipe-user-pages-soft`),
/// shared with whatever else runs. A bulk stream that finds none is copied.
pub const PIPES_MAX: usize = 48;

/// Pipes of one stream towards its local socket: what comes while that waits to be scheduled, some
/// milliseconds on a busy machine, is not copied.
pub const STREAM_PIPES_MAX: usize = 8;

/// How long a stream has moved nothing, in milliseconds, whose pipes are taken for one that finds none;
/// and how often such are looked for. A server that waits for its processor is back long before.
pub const STALLED_MILLIS: u64 = 100;

/// Payload spliced at once, at least, in bytes: below it splicing costs more than copying
/// (`docs/performance.md`).
pub const SPLICE_BYTES_MIN: usize = 64 << 10;

/// Bytes of a link that are read before the rest of a big frame is spliced: a page, so that little
/// of the frame is copied.
pub const AHEAD_BYTES_MIN: usize = 4 << 10;

/// The same while small frames fill that: what a buffer of the pool takes.
pub const AHEAD_BYTES_MAX: usize = POOL_BUFFER_BYTES as usize;

/// Payload spliced from or to one connection in one turn of the worker, in bytes: a frame.
pub const SPLICE_TURN_BYTES: usize = 1 << 20;

/// SockMux 1: window that a stream begins with, in bytes, if no less was offered. It is what a
/// stream that nobody reads can cost; one that is read grows its own (see `session::window`).
pub const FIRST_WINDOW_BYTES: u32 = 256 << 10;

/// SockMux 1: largest window of one stream, in bytes. It fills 1 Gbit/s at a round trip of 500 ms.
pub const STREAM_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// SockMux 1: what all streams of a tunnel together may have beyond their first window, in bytes.
/// With [`POOL_BUFFERS`] as the bound of what slow readers can really hold.
pub const WINDOW_BUDGET_BYTES: u64 = 128 << 20;

/// SockMux 1: least time that one window is made to last, in microseconds, whatever a ping shows: the
/// two processes of a loaded machine need it to answer each other.
pub const WINDOW_LASTS_MICROS_MIN: u64 = 250;

/// SockMux 1: most that a window grows at once, as a multiple. What one half of a window shows of
/// the path's speed may be a burst.
pub const WINDOW_GROWTH_MAX: u64 = 8;

/// SockMux 1: the round trip is measured again beside bulk not more often than this, in microseconds,
/// nor than every four round trips.
pub const ROUND_TRIP_EVERY_MICROS: u64 = 100_000;

/// SockMux 1: pings that follow the first, each when the one before is answered: that one was sent
/// by processes that were just waking up.
pub const ROUND_TRIPS_AT_FIRST: u8 = 3;

/// SockMux 1: how long the smallest round trip stands against longer ones, in microseconds. Paths
/// change seldom; queues on them come and go within this.
pub const ROUND_TRIP_KEPT_MICROS: u64 = 10_000_000;

/// SockMux 1: payload beside a ping, on our way when it went out or come before its answer, up to
/// which it shows the path and not a queue. A little more than what nobody has told of yet
/// ([`LANE_ACK_BYTES`]).
pub const ROUND_TRIP_QUIET_BYTES: u64 = 64 << 10;

/// SockMux 1: ports that an exit may have asked of its peer for one stream without an answer, and
/// those that a stream has at once, there and here. FTP and SOCKS need one at a time; a client that
/// gives up one for the next may have two under way.
pub const PORTS_PER_STREAM: usize = 4;

/// SockMux 1: credit that a peer may hold for one stream. Beyond it the peer is broken.
pub const CREDIT_BYTES_MAX: u64 = 1 << 40;

/// SockMux 1: payload up to this many bytes is a small frame: it is sent whatever is on the way.
pub const SMALL_FRAME_BYTES: u64 = 4 << 10;

/// SockMux 1: bulk that may be on the way over the connection while somebody types, in bytes. With
/// 256 KiB a keystroke beside bulk takes a fifth longer, with 128 KiB bulk loses two fifths of its
/// speed (`docs/performance.md`).
pub const LANE_CAP_TYPING_BYTES: u64 = 192 << 10;

/// SockMux 1: the same for a peer that reads slowly: what it reads in so many microseconds. Small
/// datagrams take it three times as long as the same bytes of a stream.
pub const LANE_CAP_TYPING_MICROS: u64 = 400;

/// SockMux 1: but so much in any case, in bytes, that it is told of more than once before it is used
/// up.
pub const LANE_CAP_TYPING_BYTES_MIN: u64 = 128 << 10;

/// SockMux 1: bulk that may be on the way while nobody types, in bytes.
pub const LANE_CAP_BULK_BYTES: u64 = 16 << 20;

/// SockMux 1: bulk that may be on the way while many datagrams pass, in milliseconds of what the
/// peer has read lately: what they may be late by.
pub const LANE_CAP_RUNS_MILLIS: u64 = 10;

/// SockMux 1: how long after a small frame somebody is said to type, in microseconds.
pub const TYPING_MICROS: u64 = 50_000;

/// SockMux 1: payload read from the connection after which the sender is told, in bytes: several
/// times while the smaller cap is on the way.
pub const LANE_ACK_BYTES: u64 = 48 << 10;

/// SockMux 1: the same while large runs of datagrams pass, and nobody types. Each word costs a
/// wake-up at both ends, which is a tenth of all that a flood costs.
pub const LANE_ACK_RUNS_BYTES: u64 = 1 << 20;

/// SockMux 1: how long the sender then waits for word at most, in microseconds: a small part of what
/// it may have on the way ([`LANE_CAP_RUNS_MILLIS`]).
pub const LANE_ACK_RUNS_MICROS: u64 = 1_000;

/// SockMux 1: less room than this is none, and no turn is shorter: bulk in crumbs costs more than
/// it brings.
pub const LANE_QUANTUM_BYTES: u64 = 48 << 10;

const _: () = assert!(LANE_ACK_BYTES < ROUND_TRIP_QUIET_BYTES);
const _: () = assert!(2 * LANE_ACK_RUNS_MICROS < 1_000 * LANE_CAP_RUNS_MILLIS);
const _: () = assert!(LANE_ACK_BYTES + LANE_QUANTUM_BYTES <= LANE_CAP_TYPING_BYTES / 2);
const _: () = assert!(LANE_ACK_BYTES + LANE_QUANTUM_BYTES <= LANE_CAP_TYPING_BYTES_MIN);
const _: () = assert!(LANE_CAP_TYPING_BYTES_MIN <= LANE_CAP_TYPING_BYTES);

/// Flows of datagrams of one process, if `SOXCONF=udpflows` says nothing else. Each exit's is a
/// descriptor; a resolver for a few thousand clients has as many in the 180 s that they are kept.
pub const UDP_FLOWS: usize = 4096;

/// Most that `SOXCONF=udpflows` may say: the streams that one of ours takes in one tunnel.
pub const UDP_FLOWS_MAX: usize = STREAMS_MAX as usize;

/// Largest datagram: what IPv4 leaves of 65,535 bytes behind its header and UDP's.
pub const DATAGRAM_BYTES_MAX: u32 = 65_507;

/// Datagrams of all flows of a tunnel that wait for it, in bytes, each counted with
/// [`DATAGRAM_COST_BYTES`] more. A flow may have as many as are left of it, so that a flood takes
/// half of it and a single question always finds room. It bridges the ten milliseconds in which the
/// connection is busy with a flood at full speed; what is older than
/// [`DATAGRAM_AGE_MICROS`] makes room in any case.
pub const DATAGRAM_QUEUE_BYTES: u64 = 16 << 20;

/// What a run of datagrams in a queue costs beside its bytes: its entry there and its frame's head.
pub const DATAGRAM_COST_BYTES: u64 = 32;

/// Datagrams that have waited this long for their tunnel, in microseconds, make room for new ones:
/// those who wait for an answer have asked again.
pub const DATAGRAM_AGE_MICROS: u64 = 200_000;

/// Messages taken from a socket for datagrams in one call, and so in one turn: enough that the call
/// costs little beside them, few enough that byte streams have their turn soon.
pub const DATAGRAMS_AT_ONCE: usize = 64;

/// Datagrams that the kernel cuts one send into, at most. Newer kernels take 128.
pub const DATAGRAM_SEGMENTS_MAX: u32 = 64;

/// Kernel buffer of an entrance for datagrams, in bytes: what a flood brings in the tens of
/// milliseconds that a busy machine may keep us waiting. Small datagrams count for 768 bytes there.
pub const DATAGRAM_ENTRANCE_BYTES: usize = 8 << 20;

/// Kernel buffer of an exit's socket for datagrams, one for each flow, in bytes.
pub const DATAGRAM_EXIT_BYTES: usize = 2 << 20;

/// Datagrams of one flow that wait for its server's name to be looked up, in bytes: a few of the
/// largest, or what a client asks while it waits.
pub const DATAGRAM_WAITING_BYTES: usize = 256 << 10;

/// How long a flow may be silent while the process drains, in milliseconds: an answer that is on
/// its way comes sooner.
pub const DRAIN_FLOW_MILLIS: u64 = 1_000;

/// Datagrams that come more closely than this at a socket, on average, are left to gather there, in
/// microseconds: a client that waits for each answer is never so fast (`docs/performance.md`).
pub const DATAGRAM_REST_INTERVAL_MICROS: u64 = 20;

/// How long such a socket is then left alone, in microseconds: some tens of datagrams. Besides, it is
/// what they may be late by.
pub const DATAGRAM_REST_MICROS: u64 = 200;

/// Longest that a socket is left alone because more comes to it than the tunnel takes, in
/// microseconds. What is there then is late by so much more.
pub const DATAGRAM_BACK_OFF_MICROS: u64 = 3_000;

/// A read that brought more bytes than this is followed by the next without a rest.
pub const DATAGRAM_REST_BYTES_MAX: usize = 1 << 20;

/// A message with at least so many bytes of datagrams stays where it was received; what is less is
/// copied, so that little does not hold a buffer of 64 KiB.
pub const DATAGRAM_KEEP_BYTES: usize = 16 << 10;

/// Such buffers, in all: those that are received into, and thrice as many for what waits or is being
/// sent. While all are in use, everything is copied.
pub const DATAGRAM_BUFFERS: u32 = 4 * DATAGRAMS_AT_ONCE as u32;

/// Commands of exits (`exec:`) that run at once. Each is a process at least, with three descriptors
/// and 16 KiB of ours; whoever needs more of them needs a server that takes them all.
pub const COMMANDS_MAX: usize = 256;

/// A command of an exit that fails within this time of its start, in milliseconds, has probably
/// never worked: that is worth a warning.
pub const COMMAND_AT_ONCE_MILLIS: u64 = 1_000;

/// What is logged of the standard error of a command of an exit once that has ended, in bytes: what
/// a pipe of Linux holds unless told otherwise (pipe(7)), so its last words are no more.
pub const COMMAND_LAST_WORDS_BYTES: usize = 64 << 10;

/// How long a command has from SIGTERM to SIGKILL, in milliseconds: enough to say goodbye over a slow
/// line; nobody who stops the process waits for longer.
pub const COMMAND_GRACE_MILLIS: u64 = 2_000;

/// How long a command that was killed is waited for, in milliseconds. The kernel needs some, unless a
/// file system keeps it from answering at all.
pub const COMMAND_REAP_MILLIS: u64 = 1_000;

/// Most that is read of a command's standard error at once.
pub const COMMAND_STDERR_BYTES: usize = 16 << 10;

/// Rest after each read of it, in milliseconds. With [`COMMAND_STDERR_BYTES`] this is 1 MiB/s at
/// most, by some 60 reads a second: what a flood may cost.
pub const COMMAND_STDERR_REST_MILLIS: u64 = 16;

/// Longest line of it that is logged whole. Messages for people are shorter.
pub const COMMAND_LINE_BYTES: usize = 1024;

/// Most lines of it that are logged in a second. A banner and some errors fit; the log is not there
/// for more.
pub const COMMAND_LINES_A_SECOND: u32 = 20;

/// How long the end of a serial line waits until the device has sent what it was given, in
/// milliseconds: the last frames at any usual rate. The kernel itself would wait for 30 s when the
/// other side holds us back.
pub const SERIAL_DRAIN_MILLIS: u64 = 200;
/// How often it looks, in milliseconds.
pub const SERIAL_DRAIN_GLANCE_MILLIS: u64 = 2;

/// How far the rate that a serial device really has may be from the one asked for, in percent. Two
/// clocks that differ by 5 % sample the last bit of a character wrongly; each side has half of it,
/// less what its own clock is off.
pub const SERIAL_RATE_PERCENT: u32 = 2;

/// Serial line: most payload bytes of a frame of the link layer. Longer ones save less than a
/// hundredth of the line, and would hardly pass once it turns bad: what was sent is not cut anew.
pub const LINE_PAYLOAD_BYTES_MAX: usize = 512;

/// Serial line: payload of a frame when none has been lost, as milliseconds of the line: what is
/// typed waits for one that has begun. At 115,200 baud these are 207 bytes, whose header is 4 %.
pub const LINE_FRAME_MILLIS: u64 = 18;

/// Serial line: the least that those milliseconds are taken for, in bytes.
pub const LINE_PAYLOAD_BYTES_START_MIN: usize = 64;

/// Serial line: least payload of a frame, in bytes, however many are lost: half of it is header then.
pub const LINE_PAYLOAD_BYTES_MIN: usize = 32;

/// Serial line: a write of at most so many bytes gets a frame for itself (and others like it), so
/// that a keystroke does not wait for what is written behind it.
pub const LINE_SMALL_BYTES: usize = 64;

/// Serial line: frames on the way, and kept by the receiver behind one that is missing. With
/// sequence numbers of 8 bits at most 127. They are 1.1 s of the line at 115,200 baud: a frame may be
/// lost several times before its sender has to stop.
pub const LINE_WINDOW_FRAMES: u8 = 64;

/// Serial line: how far ahead of the line its device is given bytes, in microseconds. Devices
/// buffer kilobytes, which what is typed would wait behind; a busy machine is late by a millisecond
/// or two.
pub const LINE_AHEAD_MICROS: u64 = 5_000;

/// Serial line: what may be on the way beyond the shortest round trip seen, in microseconds, besides
/// four frames: the buffers of both devices. A line that is slower than its number would else fill
/// them all.
pub const LINE_QUEUE_MICROS: u64 = 40_000;

/// Serial line: bytes of the stream that wait for the session at least before a frame is refused (to
/// be sent again). A full window may be added to them.
pub const LINE_INBOX_BYTES: usize = 64 << 10;

/// Serial line: time between two HELLO, or two SYN to a peer that was up, in microseconds.
pub const LINE_PROBE_MICROS: u64 = 1_000_000;

/// Serial line: time between two SYN while the peer has not answered, in microseconds.
pub const LINE_SYN_MICROS: u64 = 250_000;

/// Serial line: longest first packet (HELLO) of a session, in bytes. Ours have at most 112.
pub const LINE_HELLO_BYTES_MAX: usize = 512;

/// Serial line: longest offer behind a HELLO's text, in bytes. Today's has 16.
pub const LINE_OFFER_BYTES_MAX: usize = 64;

/// Serial line: shortest and longest wait for an acknowledgement, in microseconds, without the time of
/// three frames: what USB adapters and a busy machine are late by, and what is still noticed soon.
pub const LINE_RETRY_MICROS_MIN: u64 = 30_000;
/// See [`LINE_RETRY_MICROS_MIN`].
pub const LINE_RETRY_MICROS_MAX: u64 = 5_000_000;
/// Serial line: that wait before any round trip is known, in microseconds.
pub const LINE_RETRY_MICROS_FIRST: u64 = 300_000;

/// Serial line: with something to be acknowledged and no valid frame from the peer for so long, the
/// line is dead, in microseconds. Somebody may put a plug back within it.
pub const LINE_DEAD_MICROS: u64 = 30_000_000;

/// Serial line: bytes over which losses are averaged: some seconds of 115,200 baud.
pub const LINE_LOSS_BYTES: u64 = 32 << 10;

/// Serial line: bytes without a loss, as if they had been sent, that payload begins with: about 230
/// in a frame, and more when more have arrived.
pub const LINE_LOSS_BYTES_FIRST: u64 = 6_600;

const _: () = assert!(LINE_WINDOW_FRAMES <= 64, "the receiver keeps a bit for each");

/// Names of clients that are remembered, for host lists with patterns of names: some hundred bytes
/// each. More clients than that within a minute are asked for again.
pub const CLIENT_NAMES_MAX: usize = 4096;

/// How long a client's name is taken for known. Short enough that who corrects a name sees it
/// soon, long enough that a browser's many connections cost one look-up.
pub const CLIENT_NAME_SECS: u64 = 60;

/// Longest wait for a client's name. A name server that answers at all does within this; the
/// resolver's own patience is several times as long, and a client would have given up.
pub const CLIENT_NAME_PATIENCE_SECS: u64 = 5;

/// Connections and streams that wait for their client's name. Each may be a descriptor, or hold
/// what its client has said already.
pub const CLIENT_NAMES_WAITING_MAX: usize = 1024;

/// Most that a proxy keeps of what its client says ahead, in bytes: a request's head, or what comes
/// behind it while the server is being connected. Servers of HTTP take heads of 8 to 64 KiB.
pub const PROXY_HEAD_BYTES: usize = 64 << 10;

/// How long a client may take to say where it wants to go or whose it is, unless `TIMEOUT=ask` says
/// otherwise, in seconds: a program says it at once, and somebody who types a host's name has time to
/// look it up.
/// Most that a proxy is told at once, in bytes, of what its client says: what comes behind a request
/// is then still in the engine's hands when the request is seen, and waits there.
pub const PROXY_PIECE_BYTES: usize = 16 << 10;

/// Bytes for its server that wait to be sent at which a proxy listens no more to its client: enough
/// to keep a fast upload going, and the client's window bounds what waits behind.
pub const PROXY_WAITING_BYTES: u64 = 64 << 10;

/// How long a proxy waits for its client to say what it wants, in seconds: a program says it at
/// once, and somebody who types a host's name has time to look it up.
pub const PROXY_ASK_SECS: u64 = 30;

/// Longest PROXY header that an entrance takes, in bytes. The addresses need 232 at most; balancers
/// put what they know of the client's TLS behind them, certificates left out.
pub const PROXY_HEADER_BYTES: usize = 4 << 10;

/// Longest user's or host's name in a request of SOCKS 4, in bytes without the NUL. It sets none;
/// SOCKS 5 (RFC 1928, RFC 1929) has one byte for the length.
pub const SOCKS_TEXT_BYTES: usize = 255;

/// Longest line that the telnet proxy's client may type, in bytes: a host's name (253), a port, and
/// room for blanks.
pub const TELNET_LINE_BYTES: usize = 512;

/// Hosts that the telnet proxy's client may name in vain: then it is told why for the last time.
pub const TELNET_FAILURES_MAX: u32 = 3;

/// How often the telnet proxy prompts in one conversation, empty lines included: nobody leans on the
/// return key for longer.
pub const TELNET_PROMPTS_MAX: u32 = 64;

/// Longest line of FTP, a command or a line of a reply, in bytes with its end. A path may have 4096
/// (`PATH_MAX`), and a reply doubles the quotes in it.
pub const FTP_LINE_BYTES: usize = 8 << 10;

/// Commands of an FTP client that wait for their replies. Most clients send one at a time, those that
/// log in with one packet four or five.
pub const FTP_PENDING_MAX: usize = 32;

/// Commands that the FTP proxy itself answers one after another, without a word of the server between
/// them. Nobody needs as many, and nobody has to read what they are answered.
pub const FTP_OWN_ANSWERS_MAX: u32 = 64;

/// Lowest port that an FTP data connection may lead to: services live below (RFC 2577, section 3).
pub const FTP_DATA_PORT_MIN: u16 = 1024;

/// Fields of one head of HTTP, and names that its `Connection` lists. Browsers send some 20; the
/// servers that we know take about 100.
pub const HTTP_FIELDS_MAX: usize = 128;

/// Longest extension of a chunk, in bytes with the blanks before it. Nobody uses any; some servers
/// fill up the size with blanks.
pub const HTTP_EXTENSION_BYTES: usize = 256;

/// Most that the HTTP proxy keeps of what comes behind a request while its server is being
/// connected, or its answer is on the way: the window that the peer has, so that no upload is
/// refused because it was fast, and the head that came before it.
pub const HTTP_HELD_BYTES: usize = WINDOW_BYTES as usize + PROXY_HEAD_BYTES;

/// Ports on request at once, of all streams: each is a descriptor, and one of some 28,000 ports that
/// the kernel has to give. Clients in the middle of a transfer need none any more.
pub const PORTS_ON_REQUEST_MAX: usize = 1024;

/// How long a TCP port on request waits for its client, in seconds. It connects as soon as it has
/// heard of the port, over the slowest line within some seconds; most who do not have gone.
pub const PORT_WAIT_SECS: u64 = 60;

/// Lowest port of a client's host that is connected to for a server: below are the services that
/// FTP's PORT must not be turned against (RFC 2577, section 3).
pub const CALLED_PORT_MIN: u16 = 1024;

/// Destinations that one flow of SOCKS remembers having sent to, the last ones: answers come from
/// them within seconds, and a resolver or a game talks to a few dozen in that time.
pub const DESTINATIONS_PER_FLOW: usize = 64;

/// Names of destinations that one flow of SOCKS has looked up, or is looking up. A client that asks
/// by name usually means one or two servers.
pub const NAMES_PER_FLOW: usize = 16;

/// How long such a name is not looked up again, in seconds: nothing that the system's resolver says
/// tells how long it holds, and less than this is rare.
pub const NAME_HOLD_SECS: u64 = 30;

/// Datagrams of one flow of SOCKS that wait for their destination's name, and their bytes: what a
/// client sends before the first answer, or one of the largest.
pub const NAMELESS_DATAGRAMS: usize = 8;
/// See [`NAMELESS_DATAGRAMS`].
pub const NAMELESS_BYTES: usize = 64 << 10;
