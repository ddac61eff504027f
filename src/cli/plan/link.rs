//! The part of the plan that is about the persistent connection.

use std::path::PathBuf;

use super::{Bind, ExitKind, Target};
use crate::wire::Transport;

/// How the persistent connection comes about, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPlan {
    /// Receptor: accept any number of persistent connections on these addresses.
    Listen(Vec<Bind>),
    /// Connector: connect there, keep it up, reconnect for ever.
    Connect(Target),
    /// Devices or files of this machine: opened, and opened again when the peer went away.
    Device(Device),
    /// `proc@`: run by `/bin/sh -c`, again when it ends; its descriptors 0 and 1 are a socket to us.
    Command(String),
    /// `-Fsockmux` without `-A`, `-C`, `-I`, `-O` and `-X`: our own descriptors 0 and 1. The process
    /// ends when the persistent connection does.
    Stdio,
    /// Plain relay, without a persistent connection: a client that connects to these addresses is joined
    /// with the server. The plan then has no entrances and no exits.
    Relay {
        /// Where clients connect.
        binds: Vec<Bind>,
        /// Where each of them is connected to: [`ExitKind::Server`] or [`ExitKind::SamePort`].
        server: ExitKind,
        /// The transport of both sides.
        transport: Transport,
    },
    /// Proxies without a persistent connection: the streams of the plan's entrances leave by its
    /// exits, in this very process.
    Loopback,
}

impl LinkPlan {
    /// Whether there are tunnels to other processes.
    pub fn has_tunnels(&self) -> bool {
        !matches!(self, LinkPlan::Relay { .. } | LinkPlan::Loopback)
    }
}

/// The link of the persistent connection, other than TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// `commin@` and `commout@`: one for each direction, as two FIFOs are.
    Pair {
        /// Where the peer's bytes come from.
        input: PathBuf,
        /// Where ours go to.
        output: PathBuf,
    },
    /// `comm@`: one both ways, as a serial line is.
    Both {
        /// The device.
        path: PathBuf,
        /// How the line is run, if it is a serial one.
        line: LineOptions,
    },
}

/// The options of a serial line behind `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineOptions {
    /// `baud`: bits a second.
    pub baud: u32,
    /// `flow`: how a full receiver stops its sender.
    pub flow: FlowControl,
    /// `parity`: the bit behind the data bits of a character.
    pub parity: Parity,
    /// `bits`: data bits of a character.
    pub data_bits: u8,
    /// `stop`: stop bits of a character, 1 or 2.
    pub stop_bits: u8,
    /// `check`: whether frames are checked and sent again.
    pub checked: Checked,
    /// Whether any option was given.
    pub given: bool,
}

impl Default for LineOptions {
    fn default() -> Self {
        LineOptions {
            baud: 115_200,
            flow: FlowControl::None,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 1,
            checked: Checked::Auto,
            given: false,
        }
    }
}

/// How a full receiver at a serial line stops its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowControl {
    /// Not at all.
    #[default]
    None,
    /// By the wires RTS and CTS.
    RtsCts,
    /// By the characters XOFF (0x13) and XON (0x11), which no data may then contain.
    XonXoff,
}

/// The parity bit of a character on a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parity {
    /// There is none.
    #[default]
    None,
    /// It makes the number of ones even.
    Even,
    /// It makes the number of ones odd.
    Odd,
}

/// Whether data on a serial line is checked, and retransmitted where it was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checked {
    /// Between two of ours.
    #[default]
    Auto,
    /// Never.
    Never,
}
