//! Ingress: accepts connections of clients and peers. The plane owns listeners, clients waiting for
//! a tunnel, pending PROXY headers and the cache of client names.
//!
//! [`listeners`] accept, and [`entrances`] decides when they may; [`outage`] closes them while no tunnel is
//! up, if that is wanted. [`greetings`] reads PROXY
//! headers, [`access`] applies host lists, using [`names`] where a verdict depends on a name and
//! [`rejection`] for those on their wrong side, and [`clients`] opens streams on a tunnel. [`datagrams`] begins flows of new UDP clients,
//! [`services`] counts served clients. [`asked`] opens entrances for peers, and [`wanted`] asks peers for some.
//! [`successor`] hands listeners over to another process.

mod access;
mod asked;
mod clients;
mod datagrams;
mod entrances;
mod greetings;
pub(in crate::worker) mod listeners;
mod names;
mod outage;
mod rejection;
mod report;
pub(in crate::worker) mod services;
mod successor;
mod wanted;

use std::collections::VecDeque;

use self::asked::AskedEntrances;
use self::greetings::HeaderRead;
use self::listeners::Listener;
use self::names::Names;
use self::outage::Outage;
use self::successor::Reserve;
use self::wanted::WantedEntrances;
use crate::cli::plan::{LinkPlan, Plan};
use crate::limits::LISTENERS_MAX;
use crate::policy::ceilings::Ceilings;
use crate::session::Moment;
use crate::worker::message::NameWaiter;
use crate::worker::purpose::Purpose;
use crate::worker::table::{Key, Table};

/// State of the ingress plane.
pub(in crate::worker) struct Ingress {
    /// Includes listeners being closed, while their last connections are still in flight.
    listeners: Table<Listener>,
    /// Some listener ran out of descriptors.
    listeners_paused: bool,
    /// No tunnel has room for clients: they wait.
    clients_held: bool,
    /// Clients accepted before that was known. They are in the table of connections, which bounds
    /// them.
    waiting: VecDeque<Key>,
    /// When waiting clients are reset.
    hold_deadline: Option<Moment>,
    /// Clients whose PROXY header is awaited.
    header_reads: Table<HeaderRead>,
    /// Cache of client names, and what waits for a look-up.
    names: Names<NameWaiter>,
    /// Entrances that peers have asked for: which of the listeners are theirs.
    asked: AskedEntrances,
    /// Entrances that this end has asked the peer for.
    wanted: WantedEntrances,
    /// Another process accepts at its listeners until it has been taken over from.
    opens_later: bool,
    /// What the old process has opened for peers, until they ask for it.
    reserve: Reserve,
    /// What entrances do while no tunnel is up.
    outage: Outage,
    /// Number served, where `MAXIMA=service` counts them.
    served: u32,
}

impl Ingress {
    /// # Panics
    /// With more listeners than a process may have descriptors.
    pub(in crate::worker) fn new(
        opened: Vec<Listener>,
        plan: &Plan,
        ceilings: &Ceilings,
    ) -> Ingress {
        let mut listeners = Table::new(LISTENERS_MAX);
        for listener in opened {
            listeners.insert(listener).expect("there are fewer than descriptors");
        }
        // Clients of a plain relay need no tunnel.
        let is_relay = matches!(plan.link, LinkPlan::Relay { .. });
        let hold = if is_relay { None } else { plan.timeouts.hold };
        Ingress {
            listeners,
            listeners_paused: false,
            clients_held: true,
            waiting: VecDeque::new(),
            hold_deadline: hold.map(|hold| Moment(0).after(hold)),
            header_reads: Table::new(ceilings.connections),
            names: Names::new(plan.timeouts.connect),
            asked: AskedEntrances::new(),
            wanted: WantedEntrances::default(),
            opens_later: false,
            reserve: Reserve::default(),
            outage: Outage::new(plan),
            served: 0,
        }
    }

    /// Whether there are listeners whose clients use a tunnel, whichever is up.
    pub(in crate::worker) fn has_entrances(&self) -> bool {
        let mut all = self.open_listeners();
        all.any(|listener| listener.purpose == Purpose::Entrance && !listener.is_asked())
    }

    /// Listeners that are not being closed.
    fn open_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners
            .iter()
            .map(|(_, listener)| listener)
            .filter(|listener| !listener.is_closing())
    }

    /// Whether clients are left in the kernel's queue because no tunnel has room.
    pub(in crate::worker) fn clients_are_held(&self) -> bool {
        self.clients_held
    }

    /// Number of clients whose PROXY header is awaited.
    pub(in crate::worker) fn header_read_count(&self) -> usize {
        self.header_reads.len()
    }

    /// Whether accepted clients are still on their way in.
    pub(in crate::worker) fn any_coming(&self) -> bool {
        self.header_reads.len() > 0 || self.any_closing()
    }

    /// Whether a listener that is being closed may still accept.
    pub(in crate::worker) fn any_closing(&self) -> bool {
        self.listeners.iter().any(|(_, listener)| listener.is_closing())
    }

    /// Whether as many have been served as are to be.
    pub(in crate::worker) fn all_served(&self, plan: &Plan) -> bool {
        plan.maxima.services.is_some_and(|most| self.served >= most)
    }

    /// The next deadline of a name look-up.
    pub(in crate::worker) fn next_name_timeout(&self) -> Option<Moment> {
        self.names.oldest().map(|(_, until)| until)
    }
}
