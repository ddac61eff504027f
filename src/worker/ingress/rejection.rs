//! Rejects who connects here and is on the wrong side of a host list: a reset for the one, and a
//! line for the operator that has the parameter to let it in.

use std::fmt::Display;

use tracing::warn;

use crate::cli::plan::Caller;
use crate::io::driver::Driver;
use crate::io::net;
use crate::worker::access_entry::Side;
use crate::worker::context::Cx;
use crate::worker::context::log_limit::Class;
use crate::worker::message::AcceptedConn;
use crate::worker::purpose::Purpose;

/// The list that rejects somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    Reliable,
    Permit,
}

/// Resets a connection that a list rejects.
pub(super) fn turn_away<D: Driver>(
    cx: &mut Cx<D>,
    came: &AcceptedConn,
    caller: &Caller,
    rejection: Rejection,
) {
    net::reset_on_close(&came.socket);
    if came.purpose != Purpose::Receptor {
        let reason = reason_of(cx, rejection);
        cx.note_refused(None, "stream", Side::Entrance, &came.client, reason);
    }
    log_rejected(cx, came.client, caller, (rejection, came.purpose));
}

fn reason_of<D: Driver>(cx: &Cx<D>, rejection: Rejection) -> &'static str {
    match (rejection, &cx.plan.reliable) {
        (Rejection::Permit, _) => "rejected by PERMIT=",
        (Rejection::Reliable, Some(_)) => "rejected by RELIABLE=",
        (Rejection::Reliable, None) => {
            "rejected by RELIABLE=.localnet, which holds unless it is given: not of our networks"
        }
    }
}

/// Logs somebody whom a list rejects, within the rate limit, with the parameter that would let it in.
pub(super) fn log_rejected<D: Driver>(
    cx: &mut Cx<D>,
    who: impl Display,
    caller: &Caller,
    (rejection, purpose): (Rejection, Purpose),
) {
    let class = match purpose {
        Purpose::Receptor => Class::Stranger,
        Purpose::Entrance | Purpose::Relay => Class::Refusal,
    };
    if !cx.may_log(class) {
        return;
    }
    let reason = reason_of(cx, rejection);
    let lets_in = caller.client.filter(|_| rejection == Rejection::Reliable);
    let to_let_in = lets_in.map(|client| cx.plan.words_that_let_in(client));
    match purpose {
        Purpose::Receptor => warn!(peer = %who, reason, to_let_in, "tunnel did not come up"),
        _ => warn!(client = %who, reason, to_let_in, "stream refused"),
    }
}
