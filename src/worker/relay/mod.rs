//! The plain relay, which has no tunnel: [`lifecycle`] joins clients with servers, [`half`] moves the
//! bytes of each direction of a [`pair`].

pub(in crate::worker) mod half;
pub(in crate::worker) mod lifecycle;
pub(in crate::worker) mod pair;
