//! Endpoints: where streams begin at this end (entrances) and where those of the peer leave
//! (exits).

pub mod routing;
