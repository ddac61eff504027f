//! What entrances do while no tunnel is up, where it is not to wait (`SOXCONF=down:`), so that balancers
//! and health checks see it.
//!
//! A connection that broke, and a peer that is started anew, are back within moments. Clients wait for as
//! long; only then are entrances down: clients that come are reset (`refuse`), or sockets stop listening
//! (`close`). A socket that stops listening keeps its port, so that it takes no privilege to open it
//! again. Which entrances have a tunnel is looked at when tunnels have come or gone.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::cli::plan::{Plan, WhileDown};
use crate::io::driver::Driver;
use crate::limits::{DOWN_AFTER_MILLIS, DOWN_LOOK_MILLIS, DOWN_RETRY_MILLIS};
use crate::session::Moment;
use crate::worker::context::Cx;
use crate::worker::context::log_limit::Class;
use crate::worker::ingress::Ingress;
use crate::worker::purpose::Purpose;
use crate::worker::stream::Streams;

/// Whether an entrance listens, where that follows its tunnels (`down:close`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// It has no tunnel, and is closed then.
    ClosesAt(Moment),
    /// The kernel refuses its clients.
    Closed,
    /// It could not be opened again, which is tried again then.
    OpensAt(Moment),
}

impl Gate {
    pub(super) fn is_open(self) -> bool {
        matches!(self, Gate::Open | Gate::ClosesAt(_))
    }

    /// When something is to be done though no tunnel comes or goes.
    fn due(self) -> Option<Moment> {
        match self {
            Gate::ClosesAt(at) | Gate::OpensAt(at) => Some(at),
            Gate::Open | Gate::Closed => None,
        }
    }
}

/// Since when there is no tunnel, and when that is looked at.
#[derive(Debug)]
pub(super) struct Outage {
    mode: WhileDown,
    /// The number of changes that the last look has seen.
    seen: Option<u64>,
    /// Tunnels that come and go do not cause a look before.
    not_before: Moment,
    /// The next look, whether tunnels come or not.
    look_at: Option<Moment>,
    /// Without any tunnel clients are refused from then on.
    down_at: Option<Moment>,
    /// How long to wait for another tunnel. At the start there was none that could come back.
    patience: Duration,
}

impl Outage {
    pub(super) fn new(plan: &Plan) -> Outage {
        let mode = match plan.link.has_tunnels() {
            true => plan.soxconf.down,
            false => WhileDown::Hold,
        };
        Outage {
            mode,
            seen: None,
            not_before: Moment(0),
            look_at: (mode != WhileDown::Hold).then_some(Moment(0)),
            down_at: None,
            patience: Duration::ZERO,
        }
    }

    /// A tunnel is on its way: that of the process that is taken over from.
    pub(super) fn await_tunnel(&mut self) {
        self.patience = Duration::from_millis(DOWN_AFTER_MILLIS);
    }

    /// Whether clients are refused since no tunnel is up.
    pub(super) fn refuses(&self, now: Moment) -> bool {
        self.down_at.is_some_and(|at| at <= now)
    }

    pub(super) fn look_at(&self) -> Option<Moment> {
        self.look_at
    }

    /// The process drains: entrances are closed for good.
    pub(super) fn end(&mut self) {
        (self.mode, self.look_at, self.down_at) = (WhileDown::Hold, None, None);
    }

    /// Whether to look now. `changes` counts the tunnels that came and went.
    fn is_due(&mut self, changes: u64, now: Moment) -> bool {
        if self.look_at.is_some_and(|at| at <= now) {
            return true;
        }
        if self.seen == Some(changes) || self.mode == WhileDown::Hold {
            return false;
        }
        if self.not_before > now {
            let not_before = self.not_before;
            self.look_at = Some(self.look_at.map_or(not_before, |at| at.min(not_before)));
            return false;
        }
        true
    }
}

impl Ingress {
    /// Looks whether tunnels are up, if it is time to.
    pub(super) fn look_for_outage<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        is_handing_over: bool,
    ) {
        let changes = streams.tunnels().up_changes();
        if !self.outage.is_due(changes, cx.now) {
            return;
        }
        let next_look = cx.now.after(Duration::from_millis(DOWN_LOOK_MILLIS));
        if is_handing_over || self.are_opened_later() {
            // Another process has the same sockets, and would find them closed.
            self.outage.look_at = Some(next_look);
            return;
        }
        let down_at = cx.now.after(self.outage.patience);
        let is_up = !streams.tunnels().up().is_empty();
        if is_up {
            self.outage.await_tunnel();
        }
        let outage = &mut self.outage;
        outage.seen = Some(changes);
        outage.not_before = next_look;
        outage.down_at = (!is_up).then(|| outage.down_at.unwrap_or(down_at));
        outage.look_at = outage.down_at.filter(|&at| at > cx.now);
        if outage.refuses(cx.now) {
            self.refuse_waiting_for_tunnel(cx, streams);
        }
        if self.outage.mode == WhileDown::Close {
            self.close_and_open(cx, streams, down_at);
        }
    }

    /// Closes entrances that have had no tunnel for long enough, and opens those that have one.
    fn close_and_open<D: Driver>(
        &mut self,
        cx: &mut Cx<D>,
        streams: &mut Streams,
        down_at: Moment,
    ) {
        let (mut closed, mut opened) = (0, 0);
        let by_name = streams.tunnels().up_by_name();
        for (_, listener) in self.listeners.iter_mut() {
            if !listener.may_be_closed() {
                continue;
            }
            let has_tunnel = streams.tunnels().have_one_for(&by_name, listener.way());
            listener.gate = match (listener.gate, has_tunnel) {
                (Gate::Open | Gate::ClosesAt(_), true) => Gate::Open,
                (Gate::Open, false) if down_at > cx.now => Gate::ClosesAt(down_at),
                (Gate::ClosesAt(at), false) if at > cx.now => Gate::ClosesAt(at),
                (Gate::Open | Gate::ClosesAt(_), false) => {
                    listener.shut(cx);
                    closed += 1;
                    Gate::Closed
                }
                (Gate::Closed | Gate::OpensAt(_), false) => Gate::Closed,
                (Gate::OpensAt(at), true) if at > cx.now => Gate::OpensAt(at),
                (Gate::Closed | Gate::OpensAt(_), true) => match listener.open_again() {
                    Ok(()) => {
                        opened += 1;
                        Gate::Open
                    }
                    Err(error) => {
                        let again_at = cx.now.after(Duration::from_millis(DOWN_RETRY_MILLIS));
                        let address = listener.place();
                        // It is logged once, and at debug level each time that it is tried.
                        if listener.gate == Gate::Closed && cx.may_log(Class::Shortage) {
                            warn!(address, %error, "cannot open an entrance again: {REMEDY}");
                        } else {
                            debug!(address, %error, "cannot open an entrance again");
                        }
                        Gate::OpensAt(again_at)
                    }
                },
            };
            let due = listener.gate.due();
            self.outage.look_at = self.outage.look_at.into_iter().chain(due).min();
        }
        drop(by_name);
        log_changes(cx, closed, opened);
        if opened > 0 && self.may_take_clients(cx, streams) {
            self.start_accepting(cx, streams, Purpose::Entrance);
        }
    }
}

const REMEDY: &str = "another process listens there; it is tried again each second";

fn log_changes<D: Driver>(cx: &mut Cx<D>, closed: usize, opened: usize) {
    if closed > 0 && cx.may_log(Class::Tunnel) {
        info!(entrances = closed, "no tunnel is up: entrances closed (SOXCONF=down:close)");
    }
    if opened > 0 && cx.may_log(Class::Tunnel) {
        info!(entrances = opened, "a tunnel is up: entrances open again");
    }
}
