//! The command line: words as written, then a resolved and validated [`plan::Plan`].
//!
//! ```text
//! arguments -> invocation (options) -> files (+=FILE) -> build (NAME=value, one by one) -> Plan
//!                                                  |- server, exit, carrier, portlist, unix, hostlist
//!                                                  |- in_list, quotes (`,-in(option list)`)
//!                                                  |- foreground (options of -Fsockmux)
//!                                                  |- maxima, timeout, soxconf, permit, authorizer
//!                                                  |- encryption, fingerprint, peers, peer_options (the peers file)
//!                                                  `- link, checks, at_peer (all of them together)
//! ```
//!
//! [`vocabulary`] lists every word that there is, for the man page and the completions.
//!
//! Pure but for three things: reading parameter files ([`files::Files`]) and looking up the plain
//! names of host lists ([`hostlist::Lookup`]), which the caller passes in, and the networks of this
//! machine's interfaces, which `.localnet` queries when a client connects.

pub mod access_log;
mod address;
mod at_peer;
mod authorizer;
pub mod build;
mod carrier;
mod checks;
pub mod control;
pub mod encryption;
pub mod error;
mod exit;
pub mod exposure;
pub mod fence;
pub mod files;
mod fingerprint;
mod foreground;
mod habits;
mod help;
pub mod hostlist;
mod hosttest;
mod in_list;
pub mod invocation;
pub mod keygen;
mod link;
mod localnet;
pub mod log_level;
pub mod maxima;
mod number;
mod options;
mod peer_options;
pub mod peers;
mod permit;
pub mod plan;
pub mod portlist;
mod protocol;
mod quotes;
pub(crate) mod secrets;
mod server;
pub mod show;
pub mod soxconf;
mod suggest;
mod takeover;
pub mod timeout;
mod unix;
mod unsupported;
mod user;
pub mod vocabulary;
pub mod words;
