//! Proxies and the PROXY header: sizes and times of a client's messages. Also, the ports that it may
//! request.

use super::WINDOW_BYTES;

/// Addresses of the dialled peer that proxies may not reach: those of its name, and of some look-ups
/// before, since a tunnel to an older one may still be up.
pub const DIALLED_ADDRESSES_MAX: usize = 64;

/// Wrong passwords of one client's address at once: a user mistypes some, and a browser tries all that
/// it knows.
pub const WRONG_PASSWORDS_AT_ONCE: u32 = 10;

/// After this time one more, in seconds: 14,400 guesses a day find no password worth the name.
pub const WRONG_PASSWORDS_SECS: u64 = 6;

/// Addresses whose wrong passwords are remembered: some 400 KiB.
pub const WRONG_PASSWORDS_CLIENTS_MAX: usize = 4096;

/// How long a proxy waits for its client's request, in seconds. A program sends it at once, and a user
/// who types a host's name has time to look it up.
pub const PROXY_ASK_SECS: u64 = 30;

/// Most bytes that a proxy buffers of its client: a request's head, or the data behind it while the
/// server is being connected. HTTP servers accept heads of 8 to 64 KiB.
pub const PROXY_HEAD_BYTES: usize = 64 << 10;

/// Most bytes of a client that a proxy is given at once. Data behind a request is then still in the
/// engine's buffers when the request is parsed, and waits there.
pub const PROXY_PIECE_BYTES: usize = 16 << 10;

/// Bytes queued for its server at which a proxy stops reading its client: enough to keep a fast
/// upload going. The client's window bounds what is queued behind.
pub const PROXY_WAITING_BYTES: u64 = 64 << 10;

/// Longest PROXY header that an entrance accepts, in bytes. The addresses need 232 at most; balancers
/// append the client's TLS properties, without certificates.
pub const PROXY_HEADER_BYTES: usize = 4 << 10;

/// Longest user's or host's name in a request of SOCKS 4, in bytes without the NUL. It sets none;
/// SOCKS 5 (RFC 1928, RFC 1929) has one byte for the length.
pub const SOCKS_TEXT_BYTES: usize = 255;

/// Longest line that the telnet proxy's client may type, in bytes: a host's name (253), a port, and
/// room for blanks.
pub const TELNET_LINE_BYTES: usize = 512;

/// Hosts that the telnet proxy's client may name in vain, before it is disconnected.
pub const TELNET_FAILURES_MAX: u32 = 3;

/// How often the telnet proxy prompts in one session, empty lines included.
pub const TELNET_PROMPTS_MAX: u32 = 64;

/// Longest line of FTP, a command or a line of a reply, in bytes with its end. A path may have 4096
/// (`PATH_MAX`), and a reply doubles the quotes in it.
pub const FTP_LINE_BYTES: usize = 8 << 10;

/// Commands of an FTP client that wait for their replies. Most clients send one at a time, those that
/// log in with one packet four or five.
pub const FTP_PENDING_MAX: usize = 32;

/// Commands that the FTP proxy itself answers one after another, without a reply of the server
/// between them. No client needs as many.
pub const FTP_OWN_ANSWERS_MAX: u32 = 64;

/// Lowest port that an FTP data connection may lead to: services live below (RFC 2577, section 3).
pub const FTP_DATA_PORT_MIN: u16 = 1024;

/// Fields of one head of HTTP, and names that its `Connection` lists. Browsers send some 20; the
/// servers that we know take about 100.
pub const HTTP_FIELDS_MAX: usize = 128;

/// Longest extension of a chunk, in bytes with the blanks before it. Extensions are not in use;
/// some servers pad the size with blanks.
pub const HTTP_EXTENSION_BYTES: usize = 256;

/// Most that the HTTP proxy buffers behind a request while its server is being connected, or its
/// answer is pending: the peer's window, so that no upload is refused because it was fast, and the
/// head before it.
pub const HTTP_HELD_BYTES: usize = WINDOW_BYTES as usize + PROXY_HEAD_BYTES;

/// SockMux 1: most unanswered port requests of an exit for one stream, and most ports of a stream
/// at once, at either end. FTP and SOCKS need one at a time; a client that gives up one for the
/// next may have two pending.
pub const PORTS_PER_STREAM: usize = 4;

/// Most requested ports of all streams: each is a descriptor, and one of the kernel's some 28,000
/// ephemeral ports. Clients in the middle of a transfer need none any more.
pub const PORTS_ON_REQUEST_MAX: usize = 1024;

/// How long a requested TCP port waits for its client, in seconds. The client connects as soon as
/// it knows the port, within some seconds over the slowest line.
pub const PORT_WAIT_SECS: u64 = 60;

/// Lowest port of a client's host that is connected to for a server: below are the services that
/// FTP's PORT must not be turned against (RFC 2577, section 3).
pub const CALLED_PORT_MIN: u16 = 1024;
