//! One request and its answer.

use super::body::Body;
use super::request::{Forwarded, Terms};
use crate::proxy_proto::Target;

/// A request that is being served.
pub(super) struct Exchange {
    pub(super) target: Target,
    /// The request's head, until it is sent; while it may have to be sent again, still.
    pub(super) head: Vec<u8>,
    pub(super) is_repeatable: bool,
    /// The server's connection has served a request before this: that it ends without an answer
    /// can be because it had been idle for too long.
    pub(super) is_reused: bool,
    pub(super) body: Body,
    pub(super) terms: Terms,
    pub(super) answer: Answer,
}

/// How far the answer is.
pub(super) enum Answer {
    /// Nothing but interim answers was passed.
    Head,
    Body {
        body: Body,
        keeps_client: bool,
        keeps_server: bool,
    },
}

impl Exchange {
    pub(super) fn new(request: Forwarded, is_reused: bool) -> Self {
        Exchange {
            target: request.target,
            head: request.head,
            is_repeatable: request.is_repeatable,
            is_reused,
            body: Body::new(request.body),
            terms: request.terms,
            answer: Answer::Head,
        }
    }

    /// Whether some of the answer was passed, and more of it has to come.
    pub(super) fn answer_is_under_way(&self) -> bool {
        matches!(&self.answer, Answer::Body { body, .. } if !body.has_ended())
    }

    /// Whether all of the answer was passed.
    pub(super) fn is_answered(&self) -> bool {
        matches!(&self.answer, Answer::Body { body, .. } if body.has_ended())
    }
}
