//! Ingress: who comes in. [`listeners`] accept clients and peers, [`entrances`] says when; [`access`]
//! says who may, by [`names`] where that matters, after [`greetings`] has read a PROXY header;
//! [`clients`] opens their streams.

pub(in crate::worker) mod access;
pub(in crate::worker) mod clients;
pub(in crate::worker) mod datagrams;
pub(in crate::worker) mod entrances;
mod greetings;
pub(in crate::worker) mod listeners;
mod names;
mod services;

use std::collections::VecDeque;

use self::access::Waiter;
use self::greetings::Greeting;
use self::listeners::{Listener, Purpose};
use self::names::Names;
use crate::cli::plan::{LinkPlan, Plan};
use crate::limits::{CONNECTIONS_MAX, LISTENERS_MAX};
use crate::session::Moment;
use crate::worker::table::{Key, Table};

/// Who comes in, and when.
pub(in crate::worker) struct Ingress {
    /// Those that are being closed among them, whose last clients are on their way to us.
    listeners: Table<Listener>,
    /// A listener is out of descriptors, or was.
    listeners_paused: bool,
    /// No tunnel takes clients: they wait.
    clients_held: bool,
    /// Those of them that were accepted before that showed; each is in the table of connections,
    /// which bounds them.
    waiting: VecDeque<Key>,
    /// When clients that wait for a tunnel are reset.
    hold_deadline: Option<Moment>,
    /// Clients whose PROXY header is awaited.
    greetings: Table<Greeting>,
    /// What clients are called, where that matters.
    names: Names<Waiter>,
    /// How many were served, where `MAXIMA=service` counts them.
    served: u32,
}

impl Ingress {
    /// # Panics
    /// With more listeners than a process may have descriptors.
    pub(in crate::worker) fn new(opened: Vec<Listener>, plan: &Plan) -> Ingress {
        let mut listeners = Table::new(LISTENERS_MAX);
        for listener in opened {
            listeners.insert(listener).expect("there are fewer than descriptors");
        }
        // Clients of a plain relay wait for no tunnel.
        let is_relay = matches!(plan.link, LinkPlan::Relay { .. });
        let hold = if is_relay { None } else { plan.timeouts.hold };
        Ingress {
            listeners,
            listeners_paused: false,
            clients_held: true,
            waiting: VecDeque::new(),
            hold_deadline: hold.map(|hold| Moment(0).after(hold)),
            greetings: Table::new(CONNECTIONS_MAX),
            names: Names::new(plan.timeouts.connect),
            served: 0,
        }
    }

    /// Clients come in here whose streams go through a tunnel.
    pub(in crate::worker) fn has_entrances(&self) -> bool {
        self.open_listeners().any(|listener| listener.purpose == Purpose::Entrance)
    }

    /// Listeners that are not being closed.
    fn open_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners
            .iter()
            .map(|(_, listener)| listener)
            .filter(|listener| !listener.is_closing())
    }

    /// Clients are left in the kernel's queue, for want of a tunnel that takes them.
    pub(in crate::worker) fn clients_are_held(&self) -> bool {
        self.clients_held
    }

    /// Clients whose PROXY header is awaited.
    pub(in crate::worker) fn greeting_count(&self) -> usize {
        self.greetings.len()
    }

    /// Clients are on their way in, though nobody new is accepted.
    pub(in crate::worker) fn any_coming(&self) -> bool {
        self.greetings.len() > 0 || self.listeners.iter().any(|(_, listener)| listener.is_closing())
    }

    /// When the wait for a client's name is over.
    pub(in crate::worker) fn next_name_timeout(&self) -> Option<Moment> {
        self.names.oldest().map(|(_, until)| until)
    }
}
