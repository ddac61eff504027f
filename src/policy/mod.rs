//! Endpoints: where streams begin at this end (entrances) and where those of the peer leave
//! (exits), and how many there may be.

pub mod destinations;
pub mod routing;
pub mod seats;
