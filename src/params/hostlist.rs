//! Host lists: who may use an exit.

/// A parsed host list.
#[derive(Debug, Clone)]
pub struct HostList;
