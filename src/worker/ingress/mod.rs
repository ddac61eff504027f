//! Ingress: who comes in. [`listeners`] accept clients and peers, [`entrances`] says when; [`access`]
//! says who may, by [`names`] where that matters, after [`greetings`] has read a PROXY header;
//! [`clients`] opens their streams.

pub(in crate::worker) mod access;
pub(in crate::worker) mod clients;
pub(in crate::worker) mod datagrams;
pub(in crate::worker) mod entrances;
pub(in crate::worker) mod greetings;
pub(in crate::worker) mod listeners;
pub(in crate::worker) mod names;
